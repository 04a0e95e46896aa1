//! `pinpipe provision`: creates a plan, prompts for confirmation and applies the plan.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Instant;

use futures::FutureExt;

use crate::base::config::schema::{ApiAuth, Config, Target};
use crate::base::error::{Error, Result};
use crate::base::output::{Printer, Report, confirm};
use crate::provision::aws::apigateway::verify::verify_api;
use crate::provision::aws::keys;
use crate::provision::cost::Prices;
use crate::provision::engine::change::{Change, plan_change};
use crate::provision::engine::graph::Order;
use crate::provision::engine::plan::{Plan, PlanContext, Refusal, Step, action_text};
use crate::provision::engine::reconcile::{
    Converged, DataLossPolicy, converge, delete, ensure_data_loss_allowed, unmanaged,
};
use crate::provision::engine::selection::Selection;
use crate::provision::engine::session::{Changes, Purpose, Session};
use crate::provision::resource::{Action, Resource};

/// Options of `provision`.
#[derive(Debug, Clone, Default)]
pub struct ProvisionOptions {
    /// Only creates the plan.
    pub plan: bool,
    /// Writes the plan to this file.
    pub out: Option<PathBuf>,
    /// Applies this saved plan, with its selection, unless anything has changed since it was saved.
    pub apply: Option<PathBuf>,
    /// Skips the confirmation prompt.
    pub yes: bool,
    /// Allows replacing or deleting resources that hold data.
    pub allow_replace: bool,
    pub selection: Selection,
}

/// Applies the whole configuration without confirmation.
///
/// # Errors
/// A resource cannot be read or changed. Created resources are kept and recorded; the next run
/// resumes.
pub async fn apply(config: &Config, printer: &Printer) -> Result<Plan> {
    let options = ProvisionOptions { yes: true, ..ProvisionOptions::default() };
    provision(config, &options, printer).await
}

/// Creates and applies a plan, or applies a saved one. A plan that cannot be applied is returned
/// with its refusals.
///
/// # Errors
/// As [`apply`]; the user did not confirm; a saved plan is out of date.
pub async fn provision(
    config: &Config,
    options: &ProvisionOptions,
    printer: &Printer,
) -> Result<Plan> {
    let saved = options.apply.as_deref().map(Plan::load).transpose()?;
    let purpose = if options.plan { Purpose::Read } else { Purpose::Change };
    let progress = printer.activity("provisioning");
    let session = Session::open(config, purpose, progress.clone()).await?;
    let work = plan_and_apply(config, &session, options, saved.as_ref(), printer);
    let outcome = session.run_until_cancelled(work).await;
    progress.finish();
    session.close().await;
    if let Ok(plan) = &outcome
        && config.target == Target::Aws
        && plan.applied
    {
        verify(config, plan, printer).await;
    }
    outcome
}

/// Calls a deployed API and prints the result.
async fn verify(config: &Config, plan: &Plan, printer: &Printer) {
    let is_api = |step: &Step| step.key == keys::API || step.key == keys::USAGE_PLAN;
    if !plan.steps.iter().any(is_api) {
        return;
    }
    if config.api.auth == ApiAuth::None {
        printer.warn("the API accepts requests without authentication: `api.auth` is \"none\"");
    }
    match verify_api(config).await {
        Ok(text) => printer.note(text),
        Err(error) => {
            let hint = error.hint_text().unwrap_or("call the API again with `pinpipe api status`");
            printer.warn(format!("{error}\nhint: {hint}"));
        }
    }
}

async fn plan_and_apply(
    config: &Config,
    session: &Session,
    options: &ProvisionOptions,
    saved: Option<&Plan>,
    printer: &Printer,
) -> Result<Plan> {
    let selection = saved
        .map_or_else(|| options.selection.clone(), |saved| Selection::of(&saved.context.selected));
    let data_loss = DataLossPolicy {
        may_lose_data: saved.map_or(options.allow_replace, |saved| saved.context.allow_replace),
    };
    let selected = selection.keys(&session.graph)?;
    let context = context(config, session, &selected, data_loss);
    if let Some(saved) = saved {
        check_context(&saved.context, &context)?;
    }
    let changes = session.observe(&selected).await?;
    let mut plan = new_plan(session, context.clone(), false, &selected, &changes);
    plan.refusals = refusals(session, &selected, &changes, data_loss).await?;
    if let Some(saved) = saved {
        check_up_to_date(saved, &plan)?;
    }
    if let Some(path) = &options.out {
        plan.save(path)?;
        printer.note(format!("wrote the plan to `{}`", path.display()));
    }
    if plan.changes() == 0 && plan.refusals.is_empty() {
        session.mark_complete_if_done(&selected).await?;
        return Ok(plan);
    }
    if options.plan {
        return Ok(plan);
    }
    if let Some(refusal) = plan.refusal() {
        return Err(refusal);
    }
    if config.target == Target::Aws {
        // Passing a saved plan is the confirmation.
        confirm_changes(session, &plan, options.yes || saved.is_some(), printer).await?;
    }
    allow_data_loss(session, &selected, &changes, data_loss);
    let applied = apply_plan(session, printer, &selected, &changes, data_loss).await?;
    session.mark_complete_if_done(&selected).await?;
    Ok(new_plan(session, context, true, &selected, &applied))
}

fn context(
    config: &Config,
    session: &Session,
    selected: &BTreeSet<String>,
    data_loss: DataLossPolicy,
) -> PlanContext {
    PlanContext {
        id: config.id.clone(),
        account: session.account.as_ref().map(|account| account.id.clone()).unwrap_or_default(),
        region: config.aws.region.clone(),
        config_checksum: config.checksum.clone(),
        selected: selected.iter().cloned().collect(),
        allow_replace: data_loss.may_lose_data,
    }
}

/// Refuses a saved plan of another pipeline, account, region or configuration.
fn check_context(saved: &PlanContext, now: &PlanContext) -> Result<()> {
    let pairs = [
        ("pipeline", &saved.id, &now.id),
        ("account", &saved.account, &now.account),
        ("region", &saved.region, &now.region),
    ];
    for (what, planned, current) in pairs {
        if planned != current {
            return Err(Error::usage(format!(
                "the plan is for {what} `{planned}`, not for `{current}`"
            ))
            .hint("pass the configuration and credentials with which the plan was created"));
        }
    }
    if saved.config_checksum != now.config_checksum {
        return Err(out_of_date("the configuration has changed"));
    }
    Ok(())
}

fn check_up_to_date(saved: &Plan, now: &Plan) -> Result<()> {
    let differences = saved.differences(now);
    if differences.is_empty() {
        return Ok(());
    }
    let list: String = differences.iter().map(|line| format!("\n  {line}")).collect();
    Err(out_of_date(&format!("resources have changed{list}")))
}

fn out_of_date(reason: &str) -> Error {
    Error::failed(format!("cannot apply the plan, it is out of date: {reason}"))
        .hint("create a new plan with `pinpipe provision --plan --out FILE`; nothing was changed")
}

fn new_plan(
    session: &Session,
    context: PlanContext,
    applied: bool,
    selected: &BTreeSet<String>,
    changes: &Changes,
) -> Plan {
    let prices = Prices::built_in();
    let steps = session.graph.resources().filter_map(|resource| {
        let key = resource.key();
        let change = changes.get(&key).filter(|_| selected.contains(&key))?.clone();
        // A disabled resource that does not exist is not part of the pipeline.
        let is_shown = change.exists || change.action != Action::NoOp;
        is_shown.then(|| Step::new(resource, &session.graph, change, &prices))
    });
    Plan::new(context, applied, steps.collect(), &prices)
}

/// Returns the reasons why the changes cannot be applied. `--plan` and an apply report the same
/// reasons.
async fn refusals(
    session: &Session,
    selected: &BTreeSet<String>,
    changes: &Changes,
    data_loss: DataLossPolicy,
) -> Result<Vec<Refusal>> {
    let mut refusals = missing_dependencies(session, selected, changes);
    for resource in session.graph.resources() {
        let key = resource.key();
        let Some(change) = changes.get(&key).filter(|_| selected.contains(&key)) else {
            continue;
        };
        let checked = match change.action {
            Action::NoOp => Ok(()),
            Action::Unmanaged => Err(unmanaged(resource)),
            _ => match resource.check(change.action).await {
                Ok(()) => ensure_data_loss_allowed(resource, change, data_loss).await,
                refused => refused,
            },
        };
        match checked {
            Ok(()) => {}
            // The check itself failed, so it is unknown whether the plan can be applied.
            Err(error) if error.is_retryable() || error.is_interrupted() => return Err(error),
            Err(error) => refusals.push(Refusal::new(key, &error)),
        }
    }
    Ok(refusals)
}

/// Returns a refusal for each resource to be changed whose dependency neither exists nor is
/// selected.
fn missing_dependencies(
    session: &Session,
    selected: &BTreeSet<String>,
    changes: &Changes,
) -> Vec<Refusal> {
    let mut refusals = Vec::new();
    let is_changed = |key: &&String| {
        let action = changes.get(*key).map_or(Action::NoOp, |change| change.action);
        !matches!(action, Action::NoOp | Action::Delete | Action::Unmanaged)
    };
    for key in selected.iter().filter(is_changed) {
        for dependency in session.graph.depends_on(key).filter(|key| !selected.contains(*key)) {
            let exists = changes.get(dependency).is_some_and(|change| change.exists);
            let is_enabled =
                session.graph.resource(dependency).is_some_and(|resource| resource.is_enabled());
            if !exists && is_enabled {
                let error = Error::failed(format!(
                    "`{key}` depends on `{dependency}`, which does not exist"
                ))
                .hint(format!(
                    "select `{dependency}` too: add `--only {dependency}`, or remove it from `--skip`"
                ));
                refusals.push(Refusal::new(key, &error));
            }
        }
    }
    refusals
}

async fn confirm_changes(
    session: &Session,
    plan: &Plan,
    yes: bool,
    printer: &Printer,
) -> Result<()> {
    session.progress.hide();
    if !yes {
        printer.note(plan.text());
    }
    let action = format!("change {} resources of account {}", plan.changes(), plan.context.account);
    confirm(yes, &action).await?;
    session.progress.show();
    Ok(())
}

/// Allows the deletion of data for the resources that the plan deletes or replaces.
fn allow_data_loss(
    session: &Session,
    selected: &BTreeSet<String>,
    changes: &Changes,
    data_loss: DataLossPolicy,
) {
    let Some(account) = session.account.as_ref().filter(|_| data_loss.may_lose_data) else {
        return;
    };
    let is_removed = |key: &&String| changes.get(*key).is_some_and(Change::is_removal);
    account.may_lose_data.borrow_mut().extend(selected.iter().filter(is_removed).cloned());
}

async fn apply_plan(
    session: &Session,
    printer: &Printer,
    selected: &BTreeSet<String>,
    changes: &Changes,
    data_loss: DataLossPolicy,
) -> Result<Changes> {
    let deleted = delete_first(session, printer, selected, changes).await?;
    // Dependents of a changed resource are observed again, because addresses and ids may have
    // changed.
    let changed = RefCell::new(deleted);
    let changed = &changed;
    let visits = session
        .graph
        .walk(Order::DependenciesFirst, session.max_concurrency, |resource| {
            async move {
                let key = resource.key();
                let Some(planned) = changes.get(&key).filter(|_| selected.contains(&key)) else {
                    return Ok(changes.get(&key).cloned());
                };
                if planned.action == Action::Delete {
                    // `delete_first` has deleted the resource.
                    return Ok(Some(planned.clone()));
                }
                let is_stale = planned.action == Action::Replace
                    || session.graph.depends_on(&key).any(|key| changed.borrow().contains(key));
                let account = session.account.as_deref();
                let start =
                    if is_stale { plan_change(account, resource).await? } else { planned.clone() };
                let began = Instant::now();
                let converged = session
                    .run_until_shutdown(converge(account, resource, start, data_loss))
                    .await?;
                let Converged { action, mut change } = converged;
                if action != Action::NoOp {
                    let is_replaced = planned.action == Action::Replace;
                    change.action = if is_replaced { Action::Replace } else { action };
                    change.reasons.clone_from(&planned.reasons);
                    change.fields.clone_from(&planned.fields);
                    changed.borrow_mut().insert(key);
                    report_done(printer, session, resource, &resource.name(), change.action, began);
                }
                Ok(Some(change))
            }
            .boxed_local()
        })
        .await;
    let results = session.collect_results(visits)?.into_iter();
    Ok(results.filter_map(|(key, change)| Some((key, change?))).collect())
}

/// Deletes the resources to be replaced and those that are no longer in the configuration,
/// dependents first. Returns their keys.
async fn delete_first(
    session: &Session,
    printer: &Printer,
    selected: &BTreeSet<String>,
    changes: &Changes,
) -> Result<BTreeSet<String>> {
    let is_removed = |key: &&String| changes.get(*key).is_some_and(Change::is_removal);
    let keys: BTreeSet<String> = selected.iter().filter(is_removed).cloned().collect();
    let to_delete = &keys;
    let visits = session
        .graph
        .walk(Order::DependentsFirst, session.max_concurrency, |resource| {
            async move {
                if to_delete.contains(&resource.key()) {
                    let (began, name) = (Instant::now(), session.recorded_name(resource).await);
                    let deleting = delete(session.account.as_deref(), resource);
                    session.run_until_shutdown(deleting).await?;
                    report_done(printer, session, resource, &name, Action::Delete, began);
                }
                Ok(())
            }
            .boxed_local()
        })
        .await;
    session.collect_results(visits)?;
    Ok(keys)
}

/// Prints a finished change on AWS, where a change may take minutes.
fn report_done(
    printer: &Printer,
    session: &Session,
    resource: &dyn Resource,
    name: &str,
    action: Action,
    began: Instant,
) {
    if session.account.is_none() {
        return;
    }
    let done = action_text(action, true);
    let seconds = began.elapsed().as_secs_f64();
    let text = format!("{done} {} {name} in {seconds:.1} s", resource.kind());
    session.progress.aside(|| printer.note(text));
}
