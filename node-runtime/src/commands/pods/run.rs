//! `berth run`: Pods from YAML, without a kubelet. Either all of them run in the end, or nothing is left of them.
use crate::commands::connect::{self, Images, Node, Runtime, said};
use crate::commands::images::pull;
use crate::commands::pods::image_options::ImageOptions;
use crate::commands::pods::places::{Places, check_host_path};
use crate::commands::pods::spec::security::Image;
use crate::commands::pods::spec::translate::{self, Facts};
use crate::commands::pods::spec::{Container, Pod, PullPolicy, VolumeSource, parse};
use crate::commands::pods::{foreground, node_facts};
use crate::commands::{listing, output};
use crate::layout::Layout;
use anyhow::{Context, Error, Result, anyhow, bail};
use berth_model::Reference;
use berth_proto::cri as wire;
use berth_proto::node::PullImageRequest;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// What to run.
#[derive(clap::Args)]
#[command(after_long_help = "Examples:
  berth run -it --rm registry.example/tools:1 sh
  berth run -d --name web -p 8080:80 -m 128m --cpus 0.5 registry.example/web:1
  berth run -f pod.yaml
  berth run -q -f a.yaml -f b.yaml
  berth run --pull Never -f - < pod.yaml

One image is run as docker runs it: in a pod of its own, with our streams as its own, and the exit code is the
container's; 125 if it could not be run, 126 if its program cannot be executed, 127 if there is none. Ctrl-P
Ctrl-Q leaves it running. Without --rm the pod stays, stopped, with its log.

A file holds v1 Pods. Every field that is not honoured is refused by its path. Honoured are
  metadata:
    name namespace labels annotations
  spec:
    containers volumes (hostPath, emptyDir) hostname hostNetwork hostPID hostIPC hostUsers
    shareProcessNamespace securityContext dnsPolicy (Default, None) dnsConfig
    terminationGracePeriodSeconds restartPolicy (Never)
  containers:
    name image imagePullPolicy command args workingDir env (value) ports
    resources (cpu, memory) volumeMounts securityContext tty stdin stdinOnce

Nobody restarts a container that ends: a Pod without restartPolicy is run as with Never.
A container without seccompProfile gets RuntimeDefault. Logs and emptyDir volumes lie in the
daemon's lib directory until `berth rm`.

If anything fails, everything that this call has made is removed again; images stay.")]
pub struct Options {
    /// File with Pods; `-` is standard input
    #[arg(short, long = "file", value_name = "FILE", required_unless_present = "image")]
    files: Vec<String>,
    /// When to ask the registry, whatever the Pod says
    #[arg(long, value_enum, value_name = "POLICY", ignore_case = true)]
    pull: Option<PullPolicy>,
    /// Show no progress, only the ids of pods
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    image: ImageOptions,
}

impl Options {
    /// Whether one image is run, as docker runs it.
    pub fn of_image(&self) -> bool {
        !self.image.image.is_empty()
    }
}

/// Runs them. Gives the exit code: that of the container where one was waited for.
pub async fn run(layout: &Layout, options: &Options) -> Result<u8> {
    if options.of_image() {
        return foreground::run(layout, &options.image, options.pull, options.quiet).await;
    }
    let pods = read(&options.files)?;
    let mut session = Session::new(layout, options.pull, options.quiet).await?;
    let done = session.run_all(&pods, true).await;
    session.unless_failed(done).await.map(|()| 0)
}

fn read(files: &[String]) -> Result<Vec<Pod>> {
    let mut pods = Vec::new();
    for file in files {
        let limit = parse::MAX_BYTES as u64 + 1;
        let mut text = String::new();
        match file.as_str() {
            "-" => std::io::stdin().lock().take(limit).read_to_string(&mut text),
            path => std::fs::File::open(path).and_then(|f| f.take(limit).read_to_string(&mut text)),
        }
        .with_context(|| file.clone())?;
        pods.extend(parse::pods(file, &text)?);
    }
    let mut seen = BTreeSet::new();
    if let Some(twice) = pods.iter().find(|p| !seen.insert((&p.namespace, &p.name))) {
        bail!("pod {}/{} is there twice", twice.namespace, twice.name);
    }
    Ok(pods)
}

/// A pod that was begun.
struct Begun {
    namespace: String,
    name: String,
    uid: String,
    /// Once the sandbox is there.
    id: Option<String>,
    containers: Vec<String>,
}

/// Pods in the making.
pub struct Session {
    runtime: Runtime,
    images: Images,
    node: Node,
    places: Places,
    pull: Option<PullPolicy>,
    quiet: bool,
    interrupts: Interrupts,
    begun: Vec<Begun>,
}

impl Session {
    /// None yet.
    pub async fn new(layout: &Layout, pull: Option<PullPolicy>, quiet: bool) -> Result<Self> {
        let (runtime, images) = connect::cri(layout).await?;
        let node = connect::node(layout).await?;
        let (places, interrupts) = (Places::new(layout), Interrupts::new()?);
        Ok(Self { runtime, images, node, places, pull, quiet, interrupts, begun: Vec::new() })
    }

    /// Removes everything if something has failed.
    pub async fn unless_failed<T>(&mut self, done: Result<T>) -> Result<T> {
        match done {
            Ok(value) => Ok(value),
            Err(error) => match self.undo().await {
                Ok(()) => Err(error),
                Err(left) => Err(anyhow!("{error:#}\nand what was made could not be removed: {left:#}")),
            },
        }
    }

    /// The containers that were made last, by name.
    pub fn containers(&self) -> Vec<String> {
        self.begun.iter().flat_map(|b| b.containers.iter().cloned()).collect()
    }

    /// The pods that were made.
    pub fn pods(&self) -> Vec<String> {
        self.begun.iter().filter_map(|b| b.id.clone()).collect()
    }

    /// Makes all of them; with `start` their containers are started and told.
    pub async fn run_all(&mut self, pods: &[Pod], start: bool) -> Result<()> {
        self.refuse_known(pods).await?;
        for pod in pods {
            for volume in &pod.volumes {
                if let VolumeSource::HostPath { path, kind } = &volume.source {
                    check_host_path(path, *kind)?;
                }
            }
        }
        let images = self.pull_all(pods).await?;
        for pod in pods {
            self.run_pod(pod, &images, start).await?;
        }
        Ok(())
    }

    /// A kubelet would tell pods apart by their uid; people tell them apart by their name.
    async fn refuse_known(&mut self, pods: &[Pod]) -> Result<()> {
        let known = listing::list(&mut self.runtime).await?;
        let taken = pods.iter().find_map(|p| known.iter().find(|k| k.namespace == p.namespace && k.name == p.name));
        if let Some(pod) = taken {
            let (name, id, state) = (pod.full_name(), &pod.id, &pod.state);
            bail!("pod {name} exists already as {id} ({state}); remove it with `berth rm -f {name}`");
        }
        Ok(())
    }

    /// The images of all pods, before anything is made.
    async fn pull_all(&mut self, pods: &[Pod]) -> Result<BTreeMap<(String, String), Image>> {
        let mut images = BTreeMap::new();
        for pod in pods {
            for container in &pod.containers {
                let key = (pod.namespace.clone(), container.image.clone());
                let policy = pull_policy(self.pull, container)?;
                if policy == PullPolicy::Always || !images.contains_key(&key) {
                    let image = self.image(pod, container, policy).await?;
                    images.insert(key, image);
                }
            }
        }
        Ok(images)
    }

    async fn image(&mut self, pod: &Pod, container: &Container, policy: PullPolicy) -> Result<Image> {
        let reference = &container.image;
        let here = self.image_status(reference).await?;
        match (policy, here) {
            (PullPolicy::IfNotPresent | PullPolicy::Never, Some(image)) => return Ok(image),
            (PullPolicy::Never, None) => bail!("image {reference} is not on this node, and its pull policy is Never"),
            (PullPolicy::Always | PullPolicy::IfNotPresent, _) => {}
        }
        let request = PullImageRequest {
            reference: reference.clone(),
            namespace: pod.namespace.clone(),
            ..PullImageRequest::default()
        };
        let pulled = tokio::select! {
            pulled = pull::pull(&mut self.node, request, self.quiet) => pulled?,
            () = self.interrupts.wait() => return Err(interrupted()),
        };
        let image = self.image_status(&pulled.image_id).await?;
        image.with_context(|| format!("image {reference} was removed while it was pulled"))
    }

    async fn image_status(&mut self, name: &str) -> Result<Option<Image>> {
        let image = Some(wire::ImageSpec { image: name.to_owned(), ..wire::ImageSpec::default() });
        let request = wire::ImageStatusRequest { image, verbose: false };
        let found = self.images.image_status(request).await.map_err(said)?.into_inner().image;
        Ok(found.map(|i| Image { id: i.id, uid: i.uid.map(|u| u.value), username: i.username }))
    }

    async fn run_pod(&mut self, pod: &Pod, images: &BTreeMap<(String, String), Image>, start: bool) -> Result<()> {
        let facts = self.facts(pod).await?;
        let (namespace, name, uid) = (pod.namespace.clone(), pod.name.clone(), facts.uid.clone());
        self.begun.push(Begun { namespace, name, uid: uid.clone(), id: None, containers: Vec::new() });
        for volume in pod.volumes.iter().filter(|v| v.source == VolumeSource::EmptyDir) {
            self.places.make_empty_dir(&uid, &volume.name)?;
        }
        let sandbox = translate::sandbox(pod, &facts);
        // What can be refused without the daemon is refused before anything runs.
        let mut containers = Vec::new();
        for container in &pod.containers {
            let image = &images[&(pod.namespace.clone(), container.image.clone())];
            containers.push(translate::container(pod, container, image, &facts).map_err(Error::msg)?);
        }
        let request = wire::RunPodSandboxRequest { config: Some(sandbox.clone()), runtime_handler: String::new() };
        let id = self.runtime.run_pod_sandbox(request).await.map_err(said)?.into_inner().pod_sandbox_id;
        if let Some(begun) = self.begun.last_mut() {
            begun.id = Some(id.clone());
        }
        let mut made = Vec::new();
        for (config, container) in containers.into_iter().zip(&pod.containers) {
            self.interrupts.check()?;
            let started = self.run_container(&id, config, &sandbox, start).await;
            made.push((&container.name, started.with_context(|| format!("container {}", container.name))?));
        }
        self.interrupts.check()?;
        if start { self.report(pod, &id, &made) } else { Ok(()) }
    }

    async fn run_container(
        &mut self,
        pod: &str,
        config: wire::ContainerConfig,
        sandbox: &wire::PodSandboxConfig,
        start: bool,
    ) -> Result<String> {
        let request = wire::CreateContainerRequest {
            pod_sandbox_id: pod.to_owned(),
            config: Some(config),
            sandbox_config: Some(sandbox.clone()),
        };
        let id = self.runtime.create_container(request).await.map_err(said)?.into_inner().container_id;
        if let Some(begun) = self.begun.last_mut() {
            begun.containers.push(id.clone());
        }
        if start {
            let request = wire::StartContainerRequest { container_id: id.clone() };
            self.runtime.start_container(request).await.map_err(said)?;
        }
        Ok(id)
    }

    fn report(&self, pod: &Pod, id: &str, containers: &[(&String, String)]) -> Result<()> {
        if self.quiet {
            return output::line(id);
        }
        output::line(format_args!("pod {}/{} {id}", pod.namespace, pod.name))?;
        containers.iter().try_for_each(|(name, id)| output::line(format_args!("container {name} {id}")))
    }

    async fn facts(&mut self, pod: &Pod) -> Result<Facts> {
        let uid = node_facts::new_uid()?;
        let status = self.runtime.status(wire::StatusRequest::default()).await.map_err(said)?.into_inner();
        let features = status.runtime_handlers.into_iter().find(|h| h.name.is_empty()).and_then(|h| h.features);
        let first_user_id = if pod.host_users { 0 } else { self.free_user_ids().await? };
        Ok(Facts {
            log_directory: self.places.log_directory(&pod.namespace, &pod.name, &uid),
            empty_dirs: self.places.empty_dirs(&uid),
            resolv_conf: node_facts::resolv_conf()?,
            node_memory: node_facts::memory()?,
            recursive_read_only: features.is_some_and(|f| f.recursive_read_only_mounts),
            first_user_id,
            thermal_paths: node_facts::thermal_paths(),
            uid,
        })
    }

    /// A range of ids that no other pod of this daemon has.
    async fn free_user_ids(&mut self) -> Result<u32> {
        let mut used = BTreeSet::new();
        for pod in listing::list(&mut self.runtime).await? {
            let request = wire::PodSandboxStatusRequest { pod_sandbox_id: pod.id, verbose: false };
            let Ok(answer) = self.runtime.pod_sandbox_status(request).await else { continue };
            let linux = answer.into_inner().status.and_then(|s| s.linux);
            let options = linux.and_then(|l| l.namespaces).and_then(|n| n.options);
            let mappings = options.and_then(|o| o.userns_options).map(|u| u.uids).unwrap_or_default();
            used.extend(mappings.into_iter().map(|m| m.host_id));
        }
        node_facts::free_user_ids(&used)
    }

    /// Removes what was begun, the last one first.
    pub async fn undo(&mut self) -> Result<()> {
        let mut failures = Vec::new();
        for begun in std::mem::take(&mut self.begun).into_iter().rev() {
            if let Some(pod_sandbox_id) = begun.id {
                let request = wire::RemovePodSandboxRequest { pod_sandbox_id };
                if let Err(status) = self.runtime.remove_pod_sandbox(request).await {
                    failures.push(format!("pod {}/{}: {}", begun.namespace, begun.name, said(status)));
                    continue;
                }
            }
            if let Err(e) = self.places.remove(&begun.namespace, &begun.name, &begun.uid) {
                failures.push(format!("{e:#}"));
            }
        }
        if failures.is_empty() { Ok(()) } else { bail!("{}", failures.join("; ")) }
    }
}

/// The command line's word, the Pod's, else the API server's default: always for the tag `latest`.
fn pull_policy(forced: Option<PullPolicy>, container: &Container) -> Result<PullPolicy> {
    let reference = Reference::parse(&container.image).with_context(|| format!("container {}", container.name))?;
    let latest = reference.tag().is_some_and(|t| t.as_str() == "latest");
    let default = if latest { PullPolicy::Always } else { PullPolicy::IfNotPresent };
    Ok(forced.or(container.pull).unwrap_or(default))
}

/// SIGINT and SIGTERM, looked at between steps: a step that is under way at the daemon is let come to its end, so that what it
/// makes is known and can be removed.
struct Interrupts(Signal, Signal);

fn interrupted() -> Error {
    anyhow!("interrupted")
}

impl Interrupts {
    fn new() -> Result<Self> {
        Ok(Self(signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?))
    }

    async fn wait(&mut self) {
        tokio::select! {
            _ = self.0.recv() => {}
            _ = self.1.recv() => {}
        }
    }

    fn check(&mut self) -> Result<()> {
        use std::task::{Context as TaskContext, Poll, Waker};
        let mut context = TaskContext::from_waker(Waker::noop());
        let came =
            |signal: &mut Signal, context: &mut TaskContext<'_>| matches!(signal.poll_recv(context), Poll::Ready(_));
        if came(&mut self.0, &mut context) || came(&mut self.1, &mut context) { Err(interrupted()) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latest_is_pulled_each_time() {
        use PullPolicy::{Always, IfNotPresent, Never};
        let digest = format!("r.io/a@sha256:{}", "0a".repeat(32));
        let table = [
            ("r.io/a", Always),
            ("r.io/a:latest", Always),
            ("r.io/a:1", IfNotPresent),
            (digest.as_str(), IfNotPresent),
        ];
        for (image, wanted) in table {
            let mut container = Container { image: image.to_owned(), ..Container::default() };
            assert_eq!(pull_policy(None, &container).unwrap(), wanted, "{image}");
            container.pull = Some(Never);
            assert_eq!(pull_policy(None, &container).unwrap(), Never);
            assert_eq!(pull_policy(Some(Always), &container).unwrap(), Always);
        }
        assert!(pull_policy(None, &Container { image: "A B".into(), ..Container::default() }).is_err());
    }

    #[test]
    fn the_samples_are_taken_and_names_are_unique() {
        let samples = concat!(env!("CARGO_MANIFEST_DIR"), "/../manifests/samples");
        let files = ["pod.yaml", "denied-pod.yaml"].map(|f| format!("{samples}/{f}"));
        let names: Vec<_> = read(&files).unwrap().into_iter().map(|p| p.name).collect();
        assert_eq!(names, ["web", "denied"]);
        let twice = [files[0].clone(), files[0].clone()];
        assert!(read(&twice).unwrap_err().to_string().contains("default/web is there twice"));
        assert!(read(&["/nowhere.yaml".to_owned()]).is_err());
    }
}
