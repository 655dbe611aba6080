//! CreateContainer: everything that can be refused is refused here; what is made is a root file system and a record.
use crate::clock;
use crate::container::plan;
use crate::context::Engine;
use crate::pod::Pod;
use crate::record::{ContainerRecord, Life, PodPhase};
use crate::steps::Walk;
use crate::verdict::Stage;
use berth_images::{ImageRecord, RootfsPlan};
use berth_model::{ContainerConfig, ContainerId, Error, ErrorKind, PodConfig, Resources, Result};
use berth_oci::readback::Labels;
use berth_oci::spec::{image_volumes, validate_container};
use berth_store::Sync;
use std::path::Path;
use std::sync::Arc;

/// How much a container may write, as a quantity.
const WRITABLE_LIMIT: &str = "berth.dev/writable-layer-limit";
/// Less than this holds no container's first files.
const LEAST_LIMIT: u64 = 64 << 10;

impl Engine {
    /// Creates a container, or joins the creation by an equal request, or returns what exists.
    /// Errors: `NotFound` for pod or image, `FailedPrecondition` for a pod that is not ready, `InvalidArgument` naming the
    /// field, `PermissionDenied` by policy, `AlreadyExists` with id, state and remedy.
    pub async fn create_container(self: &Arc<Self>, pod: &str, config: ContainerConfig) -> Result<ContainerId> {
        let pod = self.table.pod(pod)?;
        let key = (pod.id.clone(), config.metadata.clone());
        let engine = self.clone();
        self.creates
            .join_or_start(key, config.clone(), || async move {
                match existing(&pod, &config)? {
                    Some(id) => Ok(id),
                    None => engine.execute_create(&pod, config).await,
                }
            })
            .await
    }

    async fn execute_create(self: Arc<Self>, pod: &Arc<Pod>, config: ContainerConfig) -> Result<ContainerId> {
        let id = ContainerId::from_random(clock::random()?);
        let name = config.metadata.name.clone();
        let mut walk = Walk::new("create", &self.metrics);
        match self.create_steps(&mut walk, pod, &id, config).await {
            Ok(()) => {
                let timeline = walk.timeline();
                self.starts.usual(&timeline);
                self.starts.created(&id, pod.container(&id).map(|c| c.image_id).ok(), timeline);
                tracing::info!(pod = %pod.id, container = %id, "container is created");
                Ok(id)
            }
            Err(error) => {
                let unwound = walk.unwind(error).await;
                self.troubles.create(pod, &name, &unwound.error);
                if !unwound.clean {
                    self.metrics.event("undo_failed");
                }
                Err(unwound.error)
            }
        }
    }

    async fn create_steps(
        self: &Arc<Self>,
        walk: &mut Walk,
        pod: &Arc<Pod>,
        id: &ContainerId,
        config: ContainerConfig,
    ) -> Result<()> {
        let pod_record = pod.record();
        if pod_record.phase != PodPhase::Ready {
            let problem = format!("pod {} is NOTREADY; create a new sandbox", pod.id);
            return Err(Error::new(ErrorKind::FailedPrecondition, problem));
        }
        let image = walk.step("image", async { self.image_for(&config) }).await?;
        let volumes = walk.step("image-volumes", self.image_volumes(&config)).await?;
        walk.step("policy", async {
            let namespace = &pod_record.config.metadata.namespace;
            self.decide(Stage::Create, namespace, written_reference(&config), &image)?;
            for (written, image) in &volumes {
                self.decide(Stage::Create, namespace, written, image)?;
            }
            Ok(())
        })
        .await?;
        walk.step("validate", self.check_container(pod, &config, &image)).await?;
        let (images, owner) = (self.images.clone(), id.clone());
        walk.undo("rootfs", move || async move { images.remove_rootfs(&owner).await });
        let plan = RootfsPlan {
            image: image.id.clone(),
            mapped_root: plan::mapped_root(&pod_record.config),
            image_volumes: volumes.iter().map(|(_, image)| image.id.clone()).collect(),
            volumes: image_volumes(&config, &image.config)?,
            limit: self.writable_limit(&pod_record.config, &config)?,
        };
        walk.step("rootfs", self.images.prepare_rootfs(id, plan.clone())).await?;
        let record = self.container_record(&pod_record.config, id, config, &image)?;
        let record = ContainerRecord { image_volumes: plan.image_volumes, ..record };
        let (engine, owner, gone) = (self.clone(), pod.clone(), id.clone());
        walk.undo("record", move || async move {
            engine.table.remove_container(&gone);
            owner.update(Sync::Later, |r| drop(r.containers.remove(&gone))).await
        });
        // Before the record, whose change is told: who hears of the container must find it.
        self.table.insert_container(id.clone(), pod.id.clone());
        let enter = pod.update(Sync::Now, |r| drop(r.containers.insert(id.clone(), record)));
        walk.step("record", enter).await
    }

    fn writable_limit(&self, pod: &PodConfig, config: &ContainerConfig) -> Result<Option<u64>> {
        let annotated = config.annotations.get(WRITABLE_LIMIT).or_else(|| pod.annotations.get(WRITABLE_LIMIT));
        least_limit(self.settings().storage.writable_layer_limit, annotated.map(String::as_str))
    }

    fn image_for(&self, config: &ContainerConfig) -> Result<Arc<ImageRecord>> {
        if config.image.is_empty() {
            return Err(Error::invalid("config.image.image", "must not be empty"));
        }
        self.images.find(&config.image)?.ok_or_else(|| {
            let problem = format!("image {} is not on this node; pull it first", config.image);
            Error::new(ErrorKind::NotFound, problem)
        })
    }

    /// The images that mounts name, with the references that the user wrote for them. Errors start with the ecosystem's
    /// `ImageVolumeMountFailed`, by which a kubelet counts them (cri-api, pkg/errors).
    async fn image_volumes(&self, config: &ContainerConfig) -> Result<Vec<(String, Arc<ImageRecord>)>> {
        let mut volumes = Vec::new();
        for (i, mount) in config.mounts.iter().enumerate() {
            let Some(wanted) = &mount.image else { continue };
            let at = |e: Error| e.context(format!("ImageVolumeMountFailed: mounts[{i}] ({})", mount.container_path));
            let found = self.images.find(&wanted.image).map_err(at)?;
            let image = found.ok_or_else(|| {
                let problem = format!("image {} is not on this node; pull it first", wanted.image);
                at(Error::new(ErrorKind::NotFound, problem))
            })?;
            if !self.images.has_path(&image.id, Path::new(&wanted.sub_path)).await.map_err(at)? {
                let problem = format!("image_sub_path {} does not exist in the image", wanted.sub_path);
                return Err(at(Error::new(ErrorKind::FailedPrecondition, problem)));
            }
            let written = if wanted.user_image.is_empty() { &wanted.image } else { &wanted.user_image };
            volumes.push((written.clone(), image));
        }
        Ok(volumes)
    }

    /// Refuses what a start would refuse: the specification is assembled once, for its errors alone.
    async fn check_container(&self, pod: &Pod, config: &ContainerConfig, image: &ImageRecord) -> Result<()> {
        let (record, config) = (pod.record(), &self.with_profiles(config));
        validate_container(config, &record.config, &image.config, &self.facts)?;
        self.cgroups.check(&self.with_default_limits(&config.resources))?;
        self.need_user(config, image).await?;
        plan::seccomp(self, &record.config, config).await?;
        self.need_apparmor(&config.security).await?;
        self.need_selinux(&record, &config.security).await?;
        plan::resolve_devices(self, config).await?;
        plan::check_mount_sources(config).await?;
        if config.security.namespaces.pid == berth_model::NamespaceMode::Target {
            plan::target_of(&record, config)?;
        }
        Ok(())
    }

    fn container_record(
        &self,
        pod: &berth_model::PodConfig,
        id: &ContainerId,
        config: ContainerConfig,
        image: &ImageRecord,
    ) -> Result<ContainerRecord> {
        let cgroup = self.cgroups.path(&pod.cgroup_parent, &self.paths.cgroup_parent, id.as_str())?;
        Ok(ContainerRecord {
            image_id: image.id.clone(),
            image_volumes: Vec::new(),
            image_config: image.config.clone(),
            image_ref: image.repo_digests.first().map_or_else(|| image.id.to_string(), ToString::to_string),
            stop_signal: plan::stop_signal(&config, &image.config)?,
            created_at: clock::now(),
            life: Life::Created,
            identity: None,
            labels: Labels::default(),
            cgroup,
            resources: self.with_default_limits(&config.resources),
            log_path: plan::log_path(pod, &config),
            phases: Default::default(),
            way: Default::default(),
            config,
        })
    }

    /// The CRI has no process limit; the node's settings do.
    fn with_default_limits(&self, resources: &Resources) -> Resources {
        Resources { pids: resources.pids.or(self.settings().pids_limit), ..resources.clone() }
    }
}

/// The reference that the user wrote, else what the container names.
pub(crate) fn written_reference(config: &ContainerConfig) -> &str {
    if config.user_image.is_empty() { &config.image } else { &config.user_image }
}

/// The container that holds the key already, if it was created by an equal request.
fn existing(pod: &Pod, config: &ContainerConfig) -> Result<Option<ContainerId>> {
    let record = pod.record();
    let Some((id, found)) = record.containers.iter().find(|(_, c)| c.config.metadata == config.metadata) else {
        return Ok(None);
    };
    let same = found.config == *config;
    if same && found.exit().is_none() {
        return Ok(Some(id.clone()));
    }
    let difference = if same { "" } else { " with another configuration" };
    Err(Error::new(
        ErrorKind::AlreadyExists,
        format!(
            "container {} (attempt {}) of this pod exists as {id}, {:?}{difference}; remove it, or use the next attempt number",
            config.metadata.name,
            config.metadata.attempt,
            found.state(),
        ),
    ))
}

/// Most bytes that a container may write: what the annotation says, which can lower the settings' limit and not raise it; else the
/// settings'. Errors: `InvalidArgument`.
fn least_limit(most: Option<u64>, annotated: Option<&str>) -> Result<Option<u64>> {
    let Some(text) = annotated else { return Ok(most) };
    match berth_settings::bytes(text) {
        Some(bytes) if bytes >= LEAST_LIMIT => Ok(Some(most.map_or(bytes, |most| most.min(bytes)))),
        _ => Err(Error::invalid(
            format!("annotation {WRITABLE_LIMIT}"),
            format!("{text:?} is not a quantity of at least 64Ki, such as 10Gi"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_annotation_lowers_the_nodes_limit_and_does_not_raise_it() {
        let node = Some(1 << 30);
        assert_eq!(least_limit(node, None).unwrap(), node);
        assert_eq!(least_limit(node, Some("1Mi")).unwrap(), Some(1 << 20));
        assert_eq!(least_limit(node, Some("1000Ti")).unwrap(), node);
        assert_eq!(least_limit(None, Some("1000Ti")).unwrap(), Some(1000 << 40));
        assert_eq!(least_limit(None, None).unwrap(), None);
        for bad in ["", "-1", "much", "1Ki", "0"] {
            assert!(least_limit(node, Some(bad)).unwrap_err().message().contains(WRITABLE_LIMIT), "{bad}");
        }
    }
}
