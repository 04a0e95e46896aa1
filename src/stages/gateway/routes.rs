//! Deployment of the gateway's routes. It is stored in `api.json` and survives restarts.

use std::path::{Path, PathBuf};
use std::sync::RwLock;

use crate::base::config::data_dir::DataEntry;
use crate::base::error::{Result, io_error};
use crate::base::fs::{load_json, save_json};
use crate::clients::control::Deployment;

/// Routes of the pipeline, as methods and paths. `api deploy` deploys the same routes on AWS.
pub const ROUTES: [(&str, &str); 7] = [
    ("ANY", "/topics/{proxy+}, /brokers"),
    ("GET", "/streams"),
    ("GET", "/streams/{stream-name}"),
    ("POST", "/streams/{stream-name}"),
    ("DELETE", "/streams/{stream-name}"),
    ("PUT", "/streams/{stream-name}/record"),
    ("PUT", "/streams/{stream-name}/records"),
];

/// The current deployment of the routes, if any.
pub struct Routes {
    path: PathBuf,
    current: RwLock<Option<Deployment>>,
}

impl Routes {
    /// Loads the deployment of an earlier run.
    ///
    /// # Errors
    /// The file cannot be read or is damaged.
    pub fn open(data_dir: &Path) -> Result<Self> {
        let path = DataEntry::Routes.path(data_dir);
        let current = load_json(&path)?;
        Ok(Self { path, current: RwLock::new(current) })
    }

    pub fn current(&self) -> Option<Deployment> {
        self.current.read().unwrap_or_else(|poisoned| poisoned.into_inner()).clone()
    }

    /// Deploys all routes, unless they are already deployed. Returns the deployment.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn deploy(&self) -> Result<Deployment> {
        if let Some(deployment) = self.current() {
            return Ok(deployment);
        }
        let routes = ROUTES.iter().map(|(method, path)| format!("{method} {path}")).collect();
        let deployment = Deployment { deployed_at: chrono::Utc::now(), routes };
        save_json(&self.path, &deployment)?;
        *self.current.write().unwrap_or_else(|poisoned| poisoned.into_inner()) =
            Some(deployment.clone());
        Ok(deployment)
    }

    /// Deletes the deployment. Returns `false` if no routes were deployed.
    ///
    /// # Errors
    /// The file cannot be removed; then the routes are still deployed.
    pub fn delete(&self) -> Result<bool> {
        let mut current = self.current.write().unwrap_or_else(|poisoned| poisoned.into_inner());
        if current.is_none() {
            return Ok(false);
        }
        match std::fs::remove_file(&self.path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(io_error("remove", &self.path, error));
            }
            _ => *current = None,
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_a_deployment_whose_file_it_cannot_remove() {
        let folder = tempfile::tempdir().expect("a folder");
        let routes = Routes::open(folder.path()).expect("opens");
        assert!(!routes.delete().expect("nothing is deployed"));
        routes.deploy().expect("deploys");
        std::fs::remove_file(&routes.path).expect("removes");
        // A folder, which cannot be removed like a file.
        std::fs::create_dir(&routes.path).expect("creates");
        assert!(routes.delete().is_err());
        assert!(routes.current().is_some(), "the routes are still deployed");
        std::fs::remove_dir(&routes.path).expect("removes");
        assert!(routes.delete().expect("deletes"), "a file that is gone needs no removal");
        assert!(routes.current().is_none());
    }
}
