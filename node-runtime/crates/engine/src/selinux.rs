//! SELinux: a level for each pod, labels that the policy knows, volumes that are labelled anew.
//!
//! Must not: make up labels (`oci::spec`), nor write to the node (`oci::selinux`).
use crate::clock;
use crate::context::{Engine, blocking};
use crate::pod::Pod;
use crate::record::PodRecord;
use berth_images::RootfsDirs;
use berth_model::{ContainerConfig, Error, ErrorKind, PodId, Result, SecurityContext};
use berth_oci::selinux;
use berth_oci::spec::{SelinuxLabels, free_level, selinux_labels};
use std::path::PathBuf;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

/// How long labelling a container's volumes anew may take: less than a kubelet waits for a start (2 minutes).
const RELABEL_LIMIT: Duration = Duration::from_secs(110);

impl Engine {
    /// Enters a pod into the table, with the level that it asks for, or one that no other pod of the node has.
    pub(crate) fn enter_with_level(&self, id: &PodId, mut record: PodRecord) -> Result<Arc<Pod>> {
        // Choosing and entering are one step, so that two pods never choose the same.
        let _one = self.levels.lock().unwrap_or_else(PoisonError::into_inner);
        if self.facts.selinux && self.facts.selinux_contexts.is_some() {
            let wanted = &record.config.security.selinux.level;
            record.selinux_level = if wanted.is_empty() { Some(self.new_level()?) } else { Some(wanted.clone()) };
        }
        Ok(self.enter(id.clone(), record))
    }

    fn new_level(&self) -> Result<String> {
        let taken: Vec<String> = self.table.all().iter().filter_map(|pod| pod.record().selinux_level.clone()).collect();
        let random = clock::random()?;
        let start = u32::from_le_bytes([random[0], random[1], random[2], random[3]]);
        free_level(start, |level| taken.iter().any(|t| t == level)).ok_or_else(|| {
            Error::new(ErrorKind::ResourceExhausted, "every pair of SELinux categories is in use by a pod")
        })
    }

    /// The labels of a container of this pod.
    pub(crate) fn selinux_of(&self, pod: &PodRecord, security: &SecurityContext) -> Result<Option<SelinuxLabels>> {
        selinux_labels(security, pod.selinux_level.as_deref().unwrap_or_default(), &self.facts)
    }

    /// The label of what a pod's containers share: also in a privileged pod, whose other containers need it.
    pub(crate) fn pod_file_label(&self, pod: &PodRecord) -> Result<Option<String>> {
        let security = SecurityContext { privileged: false, ..pod.config.security.clone() };
        Ok(self.selinux_of(pod, &security)?.map(|labels| labels.file))
    }

    /// The policy in force knows the container's labels. Errors: `InvalidArgument` with the label.
    pub(crate) async fn need_selinux(&self, pod: &PodRecord, security: &SecurityContext) -> Result<()> {
        let Some(labels) = self.selinux_of(pod, security)? else { return Ok(()) };
        blocking(move || selinux::check(&labels.process).and_then(|()| selinux::check(&labels.file))).await
    }

    /// Labels the volumes for which that is asked, and those that were made for the image. Errors: a directory of the node's own;
    /// `DeadlineExceeded`.
    pub(crate) async fn relabel_volumes(
        &self,
        pod: &PodRecord,
        config: &ContainerConfig,
        own: &RootfsDirs,
    ) -> Result<()> {
        let asked = config.mounts.iter().filter(|m| m.selinux_relabel && m.image.is_none());
        let asked = asked.map(|m| PathBuf::from(&m.host_path));
        let volumes: Vec<PathBuf> = asked.chain(own.volumes.iter().map(|(_, source)| source.clone())).collect();
        if volumes.is_empty() {
            return Ok(());
        }
        let Some(labels) = self.selinux_of(pod, &config.security)? else { return Ok(()) };
        let work = blocking(move || volumes.iter().try_for_each(|path| selinux::relabel(path, &labels.file)));
        tokio::time::timeout(RELABEL_LIMIT, work).await.unwrap_or_else(|_| {
            let problem = "labelling the volumes for SELinux took longer than 110 seconds; mount them with a label instead \
                           (seLinuxChangePolicy: MountOption)";
            Err(Error::new(ErrorKind::DeadlineExceeded, problem))
        })
    }
}
