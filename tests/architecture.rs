//! The layers of `src/` and the imports that are allowed between them; see docs/architecture.md.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// The layers, from the lowest to the highest. A layer imports only from those below it.
const LAYERS: [&str; 8] =
    ["base", "clients", "data", "stages", "local", "spark", "provision", "cli"];
/// Layers whose modules are siblings: they do not import each other.
const SIBLING_LAYERS: [&str; 1] = ["stages"];

/// A module: its path below the crate, such as `["stages", "stream", "run"]`.
type Module = Vec<String>;

/// Asked at run time: a binary that another clone built into the same target folder would
/// otherwise read the sources of that clone.
fn source_folder() -> PathBuf {
    let package = std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets it for tests");
    Path::new(&package).join("src")
}

/// Every module except the crate's root, with its text without comments.
fn modules() -> BTreeMap<Module, String> {
    let mut modules = BTreeMap::new();
    let mut folders = vec![source_folder()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("src can be read") {
            let path = entry.expect("src can be read").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).expect("a source file can be read");
                let module = module_of(&path);
                if !module.is_empty() {
                    modules.insert(module, without_comments(&text));
                }
            }
        }
    }
    modules
}

fn module_of(path: &Path) -> Module {
    let relative = path.strip_prefix(source_folder()).expect("a file below src").with_extension("");
    let mut module: Module =
        relative.iter().map(|part| part.to_string_lossy().into_owned()).collect();
    if matches!(module.last().map(String::as_str), Some("mod" | "lib" | "main")) {
        module.pop();
    }
    module
}

fn without_comments(text: &str) -> String {
    text.lines()
        .map(|line| line.split("//").next().unwrap_or_default())
        .collect::<Vec<_>>()
        .join("\n")
}

/// The paths after each `crate::`, with `{…}` expanded by one level.
fn crate_paths(text: &str) -> Vec<Vec<String>> {
    let mut paths = Vec::new();
    for (start, _) in text.match_indices("crate::") {
        let rest = &text[start + "crate::".len()..];
        let end = rest
            .find(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':'))
            .unwrap_or(rest.len());
        let path: Vec<String> =
            rest[..end].split("::").filter(|part| !part.is_empty()).map(String::from).collect();
        if rest[..end].ends_with("::") && rest[end..].starts_with('{') {
            let names = &rest[end + 1..rest.find('}').unwrap_or(rest.len())];
            for name in names.split(',').map(str::trim).filter(|name| !name.is_empty()) {
                let name = name.split([':', ' ']).next().unwrap_or_default().to_string();
                paths.push(path.iter().cloned().chain([name]).collect());
            }
        } else {
            paths.push(path);
        }
    }
    paths
}

/// The modules that each module imports.
fn imports() -> BTreeMap<Module, BTreeSet<Module>> {
    let modules = modules();
    let target = |path: &[String]| {
        (1..=path.len())
            .rev()
            .map(|length| path[..length].to_vec())
            .find(|module| modules.contains_key(module))
    };
    modules
        .iter()
        .map(|(module, text)| {
            let imported = crate_paths(text)
                .iter()
                .filter_map(|path| target(path))
                .filter(|imported| imported != module)
                .collect();
            (module.clone(), imported)
        })
        .collect()
}

fn layer(module: &Module) -> usize {
    let name = &module[0];
    LAYERS
        .iter()
        .position(|layer| layer == name)
        .unwrap_or_else(|| panic!("`src/{name}` is no layer: add it to LAYERS or move it"))
}

/// Every import that satisfies `is_wrong`, as `from -> to`.
fn wrong_imports(is_wrong: impl Fn(&Module, &Module) -> bool) -> Vec<String> {
    let mut wrong = Vec::new();
    for (from, imported) in imports() {
        for to in imported.iter().filter(|to| is_wrong(&from, to)) {
            wrong.push(format!("src/{} -> src/{}", from.join("/"), to.join("/")));
        }
    }
    wrong
}

#[test]
fn no_layer_imports_from_a_layer_above_it() {
    let wrong = wrong_imports(|from, to| layer(to) > layer(from));
    assert!(wrong.is_empty(), "imports that run upwards:\n{}", wrong.join("\n"));
}

#[test]
fn sibling_modules_do_not_import_each_other() {
    let sibling = |module: &Module| module.get(1).cloned();
    let wrong = wrong_imports(|from, to| {
        SIBLING_LAYERS.contains(&from[0].as_str())
            && from[0] == to[0]
            && sibling(to).is_some()
            && sibling(from) != sibling(to)
    });
    assert!(wrong.is_empty(), "imports between sibling modules:\n{}", wrong.join("\n"));
}

#[test]
fn modules_do_not_import_each_other_in_a_cycle() {
    let imports = imports();
    let mut cycles = Vec::new();
    for module in imports.keys() {
        if let Some(cycle) = cycle_through(module, &imports)
            // Each cycle once: reported by its first module.
            && cycle.iter().min() == Some(module)
        {
            cycles
                .push(cycle.iter().map(|module| module.join("/")).collect::<Vec<_>>().join(" -> "));
        }
    }
    assert!(cycles.is_empty(), "import cycles:\n{}", cycles.join("\n"));
}

/// The shortest way from a module over its imports back to itself.
fn cycle_through(
    start: &Module,
    imports: &BTreeMap<Module, BTreeSet<Module>>,
) -> Option<Vec<Module>> {
    let mut reached_from: BTreeMap<&Module, &Module> = BTreeMap::new();
    let mut open = std::collections::VecDeque::from([start]);
    while let Some(module) = open.pop_front() {
        for next in imports.get(module).into_iter().flatten() {
            if next == start {
                let mut way = vec![module.clone()];
                let mut at = module;
                while at != start {
                    at = reached_from[at];
                    way.push(at.clone());
                }
                way.reverse();
                return Some(way);
            }
            if !reached_from.contains_key(next) {
                reached_from.insert(next, module);
                open.push_back(next);
            }
        }
    }
    None
}

#[test]
fn only_the_entry_and_the_crate_page_stand_at_the_root() {
    let files: BTreeSet<String> = std::fs::read_dir(source_folder())
        .expect("src can be read")
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            path.is_file()
                .then(|| path.file_name().unwrap_or_default().to_string_lossy().into_owned())
        })
        .collect();
    assert_eq!(files, BTreeSet::from(["lib.rs".to_string(), "main.rs".to_string()]));
}

#[test]
fn one_file_names_the_entries_of_the_data_folder() {
    let owner = ["base", "config", "data_dir"].map(String::from).to_vec();
    let modules = modules();
    let joins = modules.iter().filter(|(_, text)| text.contains("data_dir.join("));
    let others: Vec<String> =
        joins.filter(|(module, _)| **module != owner).map(|(module, _)| module.join("/")).collect();
    assert!(others.is_empty(), "use `DataEntry` for paths below the data folder: {others:?}");
}

#[test]
fn imports_are_found() {
    let text = "use crate::base::error::{Error, Result};\nlet x = crate::data::sql::POST;\n";
    let paths: Vec<String> = crate_paths(text).iter().map(|path| path.join("::")).collect();
    assert_eq!(paths, ["base::error::Error", "base::error::Result", "data::sql::POST"]);
    let known = imports();
    assert!(known.len() > 150, "{} modules", known.len());
    assert!(
        known[&vec!["cli".to_string(), "dispatch".to_string()]].len() > 10,
        "dispatch imports every subcommand"
    );
}
