//! The deployments of a resource, and their models.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::RwLock;

use super::catalogue::Model;
use super::refusal::Refusal;

/// The deployments that were declared; clones share them.
///
/// While there are none, every name is a deployment, and one that is a model's name has that model.
#[derive(Debug, Clone, Default)]
pub struct Deployments(Arc<RwLock<BTreeMap<String, String>>>);

/// A deployment that is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Deployment {
    pub(crate) name: String,
    /// What its answers name.
    pub(crate) model_name: Option<String>,
    /// Nothing for a model that the table does not know, which refuses nothing.
    pub(crate) model: Option<Model>,
}

impl Deployments {
    /// Declares a deployment of a model.
    pub fn declare(&self, name: &str, model: &str) {
        self.0.write().insert(name.to_owned(), model.to_owned());
    }

    /// Declares these deployments, by name and model. Those declared before stay.
    pub fn extend(&self, deployments: impl IntoIterator<Item = (String, String)>) {
        self.0.write().extend(deployments);
    }

    /// The deployment of that name.
    ///
    /// # Errors
    /// When others are declared, and it is not.
    pub(crate) fn find(&self, name: String) -> Result<Deployment, Refusal> {
        let declared = self.0.read();
        let model_name = if declared.is_empty() {
            Model::named(&name).is_some().then(|| name.clone())
        } else {
            Some(declared.get(&name).cloned().ok_or_else(Refusal::unknown_deployment)?)
        };
        let model = model_name.as_deref().and_then(Model::named);
        Ok(Deployment { name, model_name, model })
    }
}
