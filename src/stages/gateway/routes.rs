//! Which routes the gateway serves: deployed, looked at, taken back, kept over restarts.

use std::path::{Path, PathBuf};
use std::sync::RwLock;

use crate::base::error::{Result, io_error};
use crate::base::fs::{load_json, save_json};
use crate::clients::control::Deployment;

/// The routes of the pipeline, as `api deploy` sets them up here and on AWS.
pub const ROUTES: [(&str, &str); 7] = [
    ("ANY", "/topics/{proxy+}, /brokers"),
    ("GET", "/streams"),
    ("GET", "/streams/{stream-name}"),
    ("POST", "/streams/{stream-name}"),
    ("DELETE", "/streams/{stream-name}"),
    ("PUT", "/streams/{stream-name}/record"),
    ("PUT", "/streams/{stream-name}/records"),
];

/// The deployment there is, if any.
pub struct Routes {
    path: PathBuf,
    current: RwLock<Option<Deployment>>,
}

impl Routes {
    /// Finds what an earlier run deployed.
    pub fn open(data_dir: &Path) -> Result<Self> {
        let path = data_dir.join("api.json");
        let current = load_json(&path)?;
        Ok(Self {
            path,
            current: RwLock::new(current),
        })
    }

    pub fn current(&self) -> Option<Deployment> {
        self.current
            .read()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
            .clone()
    }

    /// Deploys all routes; what is deployed already stays as it is.
    pub fn deploy(&self) -> Result<Deployment> {
        if let Some(deployment) = self.current() {
            return Ok(deployment);
        }
        let routes = ROUTES
            .iter()
            .map(|(method, path)| format!("{method} {path}"))
            .collect();
        let deployment = Deployment {
            deployed_at: chrono::Utc::now(),
            routes,
        };
        save_json(&self.path, &deployment)?;
        *self
            .current
            .write()
            .unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(deployment.clone());
        Ok(deployment)
    }

    /// Takes the routes back. `false`: none were deployed.
    pub fn delete(&self) -> Result<bool> {
        let had = self
            .current
            .write()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
            .take()
            .is_some();
        if had {
            std::fs::remove_file(&self.path)
                .map_err(|error| io_error("remove", &self.path, error))?;
        }
        Ok(had)
    }
}
