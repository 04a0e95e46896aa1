//! The password of the REST proxy, known only to the API and the client machine.

use std::rc::Rc;

use async_trait::async_trait;

use crate::base::error::Result;
use crate::provision::aws::context::Account;
use crate::provision::aws::keys;
use crate::provision::aws::names;
use crate::provision::aws::outputs;
use crate::provision::aws::parameter;
use crate::provision::resource::{Observation, Resource};
use crate::provision::state::output::ObservedOutputs;

const KEY: &str = keys::PROXY_SECRET;

pub struct ProxySecret {
    pub account: Rc<Account>,
}

#[async_trait(?Send)]
impl Resource for ProxySecret {
    fn key(&self) -> String {
        KEY.into()
    }

    fn kind(&self) -> &'static str {
        "proxy-secret"
    }

    fn name(&self) -> String {
        names::proxy_secret_name(&self.account.config)
    }

    async fn observe(&self, observed: &mut ObservedOutputs) -> Result<Observation> {
        let Some(description) = parameter::description(&self.account, &self.name()).await? else {
            return Ok(Observation::missing());
        };
        observed.found(self.name()).set(&outputs::PROXY_SECRET_MARK, description);
        let differences = parameter::tag_differences(&self.account, KEY, &self.name()).await?;
        Ok(Observation::compared(differences, "in Parameter Store"))
    }

    async fn create(&self) -> Result<()> {
        // 244 random bits, as letters and digits only, because the proxy reads the password from a
        // properties file.
        let secret = format!("{}{}", uuid::Uuid::new_v4().simple(), uuid::Uuid::new_v4().simple());
        // The identifier distinguishes this password from an earlier one without revealing it.
        let id = uuid::Uuid::new_v4().simple();
        let description = format!("password of pinpipe's REST proxy, {id}");
        parameter::put(&self.account, KEY, &self.name(), &secret.into(), &description).await
    }

    async fn update(&self) -> Result<()> {
        parameter::put_tags(&self.account, KEY, &self.name()).await
    }

    async fn delete(&self) -> Result<bool> {
        parameter::delete(&self.account, &self.name()).await
    }
}
