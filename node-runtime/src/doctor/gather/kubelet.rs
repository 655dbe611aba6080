//! Running kubelets, as the checks want them: settings that are one value.
use crate::doctor::facts::Kubelet;
use crate::kubelets::{self, View};
use crate::layout::Layout;
use berth_adopt::kubelet::scalar;
use std::path::Path;

/// The kubelet with this id; else all of the node for the system's own daemon, and those that name its socket for another one.
pub(super) fn gather(layout: &Layout, only: Option<u32>) -> Vec<Kubelet> {
    let all = only.map_or_else(kubelets::all, |pid| vec![pid]).into_iter().map(read);
    let ours = layout.cri_socket();
    let is_ours = |k: &Kubelet| Kubelet::socket(k.setting("containerRuntimeEndpoint")) == ours;
    all.filter(|k| only.is_some() || layout.is_system() || is_ours(k)).collect()
}

fn read(pid: u32) -> Kubelet {
    let told = kubelets::configuration(pid);
    let problem = told.problems.into_iter().next();
    let named = problem.as_ref().map(|(path, _)| path.clone()).or_else(|| Some(told.file?.path));
    let mut kubelet = Kubelet {
        pid,
        config: named,
        problem: problem.map(|(_, problem)| problem),
        settings: told.settings.iter().filter_map(|(name, value)| Some((name.clone(), scalar(value)?))).collect(),
        resolv_conf: None,
    };
    let file = kubelet.setting("resolvConf").to_owned();
    if !file.is_empty() {
        kubelet.resolv_conf = super::network::servers(&View(pid).place(Path::new(&file)));
    }
    kubelet
}
