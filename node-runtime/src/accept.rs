//! What makes merged documents good, wherever they are looked at: by the daemon before they are in force, by `berth config check`.
//!
//! Must not: look at the node; what only a node can say, its daemon says.
use berth_model::Result;
use berth_settings::Settings;
use berth_trust::PolicySet;

/// All policies can be compiled, all seccomp profiles and the CNI configuration read, and what refers to another part finds it. Errors: the field.
pub fn everywhere(settings: &Settings) -> Result<()> {
    PolicySet::new(&settings.policies)?;
    settings.spec.network.cni.conf_list.as_deref().map_or(Ok(()), berth_network::check_template)?;
    berth_engine::check_profiles(&settings.spec)
}
