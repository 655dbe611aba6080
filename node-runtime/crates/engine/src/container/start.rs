//! StartContainer: cgroup with its limits, log, specification, spawn, record, go. A failed start ends EXITED.
use crate::clock;
use crate::container::plan::{self, SpecParts};
use crate::context::{Engine, blocking};
use crate::pod::Pod;
use crate::pod::stop::run_to_end;
use crate::record::{ContainerRecord, Life, START_ERROR_CODE, Span};
use crate::steps::Walk;
use berth_cgroups::{DevicePolicy, Driver};
use berth_model::{ContainerId, Error, ErrorKind, ExitReason, ExitStatus, PhaseLog, Result};
use berth_monitor_api::frame::TaskKind;
use berth_monitor_api::spec::{InitSpec, TerminalSize};
use berth_oci::monitor::{Event, SpawnRequest, Start, TaskStdio};
use berth_oci::readback::{self, Labels};
use berth_store::Sync;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Weak};
use std::time::Instant;
use tokio::sync::oneshot;

/// Who has asked for a start.
struct Caller {
    /// Alive as long as somebody waits for it.
    waits: Weak<()>,
    streams: Option<Opening>,
}

/// Streams of the first process that are to be opened before its program is executed.
pub(super) struct Opening {
    /// Of its terminal, if it has one.
    pub size: Option<TerminalSize>,
    /// Takes the streams as the monitor hands them over.
    pub hand: oneshot::Sender<Vec<OwnedFd>>,
}

impl Opening {
    /// The child waits for `Go`: it has its terminal, has written nothing, and cannot end before this is done.
    async fn open(self, pod: &Pod, id: &ContainerId) -> Result<()> {
        let monitor = pod.monitor()?;
        let streams = monitor.attach(id.as_str()).await?;
        if let Some(size) = self.size {
            monitor.resize(id.as_str(), size.rows, size.cols).await?;
        }
        // Who does not take them has gone away, and with them the streams.
        let _ = self.hand.send(streams);
        Ok(())
    }
}

impl Engine {
    /// Starts a created container; returns after its program was executed.
    /// Errors: `NotFound`; `FailedPrecondition` when it is not CREATED; `Unavailable` when the pod's monitor does not answer now.
    /// Any other error leaves it EXITED with the reason; so does a caller that goes away before the program is executed. It would make
    /// the next attempt, and two of them would run.
    pub async fn start_container(self: &Arc<Self>, id: &str) -> Result<()> {
        self.start_opening(id, None).await
    }

    /// Starts a container, and opens its streams on the way. Errors: as [`Engine::start_container`]; also a container whose streams
    /// cannot be opened is not executed.
    pub(super) async fn start_opening(self: &Arc<Self>, id: &str, streams: Option<Opening>) -> Result<()> {
        let (pod, id) = self.table.container(id)?;
        let engine = self.clone();
        let asking = Arc::new(());
        let caller = Caller { waits: Arc::downgrade(&asking), streams };
        let started = run_to_end(async move {
            let mut walk = Walk::new("start", &engine.metrics);
            let lock = pod.container_lock(&id);
            let _one = lock.lock().await;
            walk.waited();
            engine.execute_start(walk, (&pod, &id), caller).await
        })
        .await;
        drop(asking);
        started
    }

    async fn execute_start(
        self: &Arc<Self>,
        mut walk: Walk,
        (pod, id): (&Arc<Pod>, &ContainerId),
        caller: Caller,
    ) -> Result<()> {
        let container = pod.container(id)?;
        if container.life != Life::Created {
            let problem = format!("container {id} is {:?}, only a CREATED one can be started", container.state());
            return Err(Error::new(ErrorKind::FailedPrecondition, problem));
        }
        // Before anything is changed: a pod whose monitor does not answer now may do so at the next try.
        pod.monitor()?;
        pod.begin_start(id);
        match self.start_steps(&mut walk, (pod, id), &container, caller).await {
            Ok(labels) => {
                let timeline = walk.timeline();
                self.starts.usual(&timeline);
                let note = pod.update_container(id, Sync::Later, |c| {
                    c.way.start = Span { began: timeline.began, micros: timeline.micros };
                    c.phases = timeline.phases;
                    c.labels = labels;
                });
                let noted = note.await;
                tracing::info!(pod = %pod.id, container = %id, "container is running");
                if let Some(exit) = pod.end_start(id) {
                    self.container_ended(pod, id, pod.container(id)?.exit_status(&exit)).await;
                }
                noted
            }
            Err(error) => {
                let timeline = walk.timeline();
                let error = walk.unwind(error).await.error;
                self.troubles.start(pod, &container.config, &error);
                // Written with the container's end, which follows.
                pod.note_container(id, |c| c.way.failed = Some(timeline));
                let status = ExitStatus {
                    code: START_ERROR_CODE,
                    finished_at: clock::now(),
                    reason: ExitReason::StartError,
                    message: error.message().to_owned(),
                };
                self.container_ended(pod, id, status).await;
                // Whatever its process's end says, this is why it ended.
                pod.end_start(id);
                Err(error)
            }
        }
    }

    async fn start_steps(
        self: &Arc<Self>,
        walk: &mut Walk,
        (pod, id): (&Arc<Pod>, &ContainerId),
        container: &ContainerRecord,
        caller: Caller,
    ) -> Result<Labels> {
        let way = self.starts.take_way(id);
        let begin = pod.update_container(id, Sync::Later, |c| {
            c.life = Life::Starting;
            c.way = way.unwrap_or_default();
        });
        walk.step("record", begin).await?;
        let container = &ContainerRecord { config: self.with_profiles(&container.config), ..container.clone() };
        let parts = SpecParts {
            rootfs: walk.step("rootfs", async { self.images.rootfs(id) }).await?,
            seccomp: plan::seccomp(self, &pod.record().config, &container.config).await?,
            devices: plan::resolve_devices(self, &container.config).await?,
        };
        self.relabel_volumes(&pod.record(), &container.config, &parts.rootfs).await?;
        let policy = plan::device_policy(container, &parts.devices);
        let (cgroups, group, limits, rules) =
            (self.cgroups.clone(), container.cgroup.clone(), container.resources.clone(), policy.clone());
        walk.step("cgroup", blocking(move || cgroups.create(&group, &limits, &rules))).await?;
        let assemble = async {
            // Since its create a document may have changed, or somebody has taken the profile out of the kernel.
            self.need_apparmor(&container.config.security).await?;
            plan::specification(self, pod, container, parts)
        };
        let spec = walk.step("spec", assemble).await?;
        let spec = InitSpec::Container(Box::new(spec));
        let mut start = walk.step("spawn", self.spawn(pod, id, container, &spec)).await?;
        let parts = walk.parts();
        let set_up = self.drive(&mut start, (pod, id), container, &policy, &parts);
        let ready = walk.step("setup", set_up).await;
        // Also of a set-up that failed: where it stood still shows here.
        walk.adopt("setup", start.begun(), start.phases().clone());
        let (pid, identity) = ready?;
        if caller.waits.strong_count() == 0 {
            let problem = "whoever asked for the start went away before the program was executed";
            return Err(Error::new(ErrorKind::DeadlineExceeded, problem));
        }
        let started_at = clock::now();
        let run = pod.update_container(id, Sync::Later, |c| {
            c.life = Life::Running { pid, started_at };
            c.identity = Some(identity);
        });
        walk.step("running", run).await?;
        if let Some(streams) = caller.streams {
            streams.open(pod, id).await?;
        }
        walk.step("exec", self.execute(&mut start, (pod, container), pid)).await
    }

    async fn spawn(&self, pod: &Pod, id: &ContainerId, container: &ContainerRecord, spec: &InitSpec) -> Result<Start> {
        let stdin = container.config.stdin;
        let stdio = if container.config.tty { TaskStdio::LogTerminal } else { TaskStdio::Log { stdin } };
        let log: Option<OwnedFd> = match container.log_path.clone() {
            Some(path) => Some(blocking(move || berth_oci::logs::open(&path)).await?),
            None => None,
        };
        let own = self.cgroups.driver() == Driver::Cgroupfs;
        let (oom, kill) = if own { self.watched(container).await? } else { (None, None) };
        let join = plan::joined_task(pod, container)?;
        let request = SpawnRequest {
            init: self.launcher.init(),
            id: id.as_str(),
            kind: TaskKind::Container,
            stdio,
            join: join.as_deref(),
            log: log.as_ref().map(AsFd::as_fd),
            oom: oom.as_ref().map(AsFd::as_fd),
            kill: kill.as_ref().map(AsFd::as_fd),
            spec,
        };
        pod.monitor()?.spawn(request).await
    }

    /// The files by which a monitor counts OOM kills and ends what is left, open.
    async fn watched(&self, container: &ContainerRecord) -> Result<(Option<OwnedFd>, Option<OwnedFd>)> {
        let (cgroups, group) = (self.cgroups.clone(), container.cgroup.clone());
        blocking(move || Ok((cgroups.oom_fd(&group)?, cgroups.kill_fd(&group)?))).await
    }

    /// Has systemd make a scope around the paused child, and tells the monitor of it.
    async fn enter_scope(
        &self,
        pod: &Pod,
        id: &ContainerId,
        container: &ContainerRecord,
        pid: u32,
        policy: &DevicePolicy,
    ) -> Result<()> {
        self.cgroups.start_scope(&container.cgroup, pid, &container.resources, policy).await?;
        let (oom, kill) = self.watched(container).await?;
        let (oom, kill) = (oom.as_ref().map(AsFd::as_fd), kill.as_ref().map(AsFd::as_fd));
        pod.monitor()?.set_cgroup(id.as_str(), oom, kill).await
    }

    /// Follows init until the child waits for `Go`.
    async fn drive(
        &self,
        start: &mut Start,
        (pod, id): (&Pod, &ContainerId),
        container: &ContainerRecord,
        policy: &DevicePolicy,
        parts: &PhaseLog,
    ) -> Result<(u32, berth_monitor_api::sync::Identity)> {
        loop {
            match start.next().await? {
                Event::Paused { pid } => {
                    let begun = Instant::now();
                    self.enter_scope(pod, id, container, pid, policy).await?;
                    parts.add("start/setup/systemd", begun, Instant::now());
                    start.continue_().await?;
                }
                Event::Ready { pid, identity } => return Ok((pid, identity)),
                Event::Made { .. } | Event::Started => {
                    return Err(Error::internal("init answered a container as if it were a sandbox"));
                }
            }
        }
    }

    /// Lets the child execute its program, and reads back from the kernel what confines it.
    async fn execute(&self, start: &mut Start, of: (&Pod, &ContainerRecord), pid: u32) -> Result<Labels> {
        let (pod, container) = of;
        start.go().await?;
        if start.next().await? != Event::Started {
            return Err(Error::internal("init said something unexpected after Go"));
        }
        // On an error the caller ends the container by its cgroup.
        let expected = readback::Expected::of(
            &container.config.security,
            self.selinux_of(&pod.record(), &container.config.security)?.map(|labels| labels.process),
            &self.facts,
        )?;
        blocking(move || readback::check(pid, &expected)).await
    }
}
