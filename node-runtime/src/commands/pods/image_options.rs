//! What `docker run` is typed with, made into a Pod of one container. Pure, but for variables that are taken from here.
use super::spec::{
    Container, HostPathKind, Pod, Port, Propagation, Protocol, RecursiveReadOnly, Volume, VolumeMount, VolumeSource,
    parse, quantity,
};
use crate::commands::containers::{env, keys};
use anyhow::{Context, Result, bail};
use berth_model::Reference;
use std::net::IpAddr;

/// Seconds that a container gets to stop in, as a Pod has it.
const GRACE: i64 = 30;

/// How to run one image.
#[derive(Debug, Default, clap::Args)]
#[command(next_help_heading = "For one image")]
pub struct ImageOptions {
    /// Hand on what is typed or piped
    #[arg(short, long, conflicts_with = "files")]
    pub interactive: bool,
    /// With a terminal
    #[arg(short, long, conflicts_with = "files")]
    pub tty: bool,
    /// Do not wait for it; print its pod and go
    #[arg(short, long, conflicts_with_all = ["files", "interactive", "tty", "rm"])]
    pub detach: bool,
    /// Remove the pod when it has ended
    #[arg(long, conflicts_with = "files")]
    pub rm: bool,
    /// Name of the pod; made of the image's without
    #[arg(long, value_name = "NAME", conflicts_with = "files")]
    pub name: Option<String>,
    /// Namespace of the pod, whose image policies apply
    #[arg(long, value_name = "NAMESPACE", default_value = "default", conflicts_with = "files")]
    pub namespace: String,
    /// Port of the node that leads to one of the container
    #[arg(short, long = "publish", value_name = "[[ADDRESS:]PORT:]PORT[/udp]", conflicts_with = "files")]
    pub publish: Vec<String>,
    /// Directory or file of the node, inside the container
    #[arg(short, long = "volume", value_name = "PATH:PATH[:ro]", conflicts_with = "files")]
    pub volume: Vec<String>,
    /// Set a variable; without a value it is taken from here
    #[arg(short, long = "env", value_name = "NAME[=VALUE]", conflicts_with = "files")]
    pub env: Vec<String>,
    /// Read variables from a file
    #[arg(long, value_name = "FILE", conflicts_with = "files")]
    pub env_file: Vec<String>,
    /// Label of the pod
    #[arg(short, long = "label", value_name = "KEY=VALUE", conflicts_with = "files")]
    pub label: Vec<String>,
    /// Memory limit, such as 128m
    #[arg(short, long, value_name = "SIZE", value_parser = quantity::docker_size, conflicts_with = "files")]
    pub memory: Option<i64>,
    /// CPUs, such as 0.5
    #[arg(long, value_name = "NUMBER", value_parser = quantity::cpus, conflicts_with = "files")]
    pub cpus: Option<i64>,
    /// Working directory
    #[arg(short, long, value_name = "DIR", conflicts_with = "files")]
    pub workdir: Option<String>,
    /// User, and group, by number
    #[arg(short, long, value_name = "UID[:GID]", conflicts_with = "files")]
    pub user: Option<String>,
    /// Program instead of the image's
    #[arg(long, value_name = "PROGRAM", conflicts_with = "files")]
    pub entrypoint: Option<String>,
    /// Host name
    #[arg(long, value_name = "NAME", conflicts_with = "files")]
    pub hostname: Option<String>,
    /// `host` for the node's network
    #[arg(long, value_name = "NETWORK", value_parser = ["host", "default", "bridge"], conflicts_with = "files")]
    pub network: Option<String>,
    /// Add a capability
    #[arg(long, value_name = "CAPABILITY", conflicts_with = "files")]
    pub cap_add: Vec<String>,
    /// Drop a capability
    #[arg(long, value_name = "CAPABILITY", conflicts_with = "files")]
    pub cap_drop: Vec<String>,
    /// With all capabilities and devices
    #[arg(long, conflicts_with = "files")]
    pub privileged: bool,
    /// Its root cannot be written to
    #[arg(long, conflicts_with = "files")]
    pub read_only: bool,
    /// Keys that leave the session
    #[arg(long, value_name = "KEYS", default_value = keys::DEFAULT, conflicts_with = "files")]
    pub detach_keys: String,
    /// Image, and arguments for its program
    #[arg(value_name = "IMAGE", trailing_var_arg = true, allow_hyphen_values = true, conflicts_with = "files")]
    pub image: Vec<String>,
}

impl ImageOptions {
    /// The Pod. `random` makes a name of it unique.
    pub fn pod(&self, random: &str) -> Result<Pod> {
        let (image, arguments) = self.image.split_first().context("an image is missing")?;
        let reference = Reference::parse(image)?;
        let base = base_name(&reference.repository());
        let name = self.name.clone().unwrap_or_else(|| format!("{base}-{random}"));
        if !parse::label(&name) {
            bail!("--name {name:?}: must be lower-case letters, digits and '-', at most 63");
        }
        if !parse::label(&self.namespace) {
            bail!("--namespace {:?}: must be lower-case letters, digits and '-', at most 63", self.namespace);
        }
        let (volumes, mounts) = self.volumes()?;
        let host_network = self.network.as_deref() == Some("host");
        let mut container = Container {
            name: if self.name.is_some() { name.clone() } else { base },
            image: image.clone(),
            // `$` begins nothing here: docker does not expand.
            command: self.entrypoint.iter().map(|text| text.replace('$', "$$")).collect(),
            args: arguments.iter().map(|text| text.replace('$', "$$")).collect(),
            working_dir: self.workdir.clone().unwrap_or_default(),
            env: self.variables()?,
            ports: self.publish.iter().map(|text| port(text, host_network)).collect::<Result<_>>()?,
            mounts,
            tty: self.tty,
            stdin: self.interactive,
            stdin_once: self.interactive,
            ..Container::default()
        };
        if container.working_dir.bytes().next().is_some_and(|b| b != b'/') {
            bail!("--workdir {:?}: must be an absolute path", container.working_dir);
        }
        (container.resources.memory_limit, container.resources.cpu_limit) = (self.memory, self.cpus);
        container.resources = container.resources.with_defaults();
        let security = &mut container.security;
        (security.privileged, security.read_only_root) = (self.privileged, self.read_only);
        let capability = |text: &String| {
            let upper = text.to_uppercase();
            upper.strip_prefix("CAP_").unwrap_or(&upper).to_owned()
        };
        security.add = self.cap_add.iter().map(capability).collect();
        security.drop = self.cap_drop.iter().map(capability).collect();
        if let Some(user) = &self.user {
            (security.common.run_as_user, security.common.run_as_group) = user_of(user)?;
        }
        if self.hostname.as_deref().is_some_and(|h| !parse::label(h)) {
            bail!("--hostname: must be lower-case letters, digits and '-', at most 63");
        }
        Ok(Pod {
            name,
            namespace: self.namespace.clone(),
            labels: self.label.iter().map(|text| label(text)).collect::<Result<_>>()?,
            containers: vec![container],
            volumes,
            hostname: self.hostname.clone(),
            host_network,
            host_users: true,
            termination_grace_period: GRACE,
            ..Pod::default()
        })
    }

    fn variables(&self) -> Result<Vec<(String, String)>> {
        let mut texts = env::files(&self.env_file)?;
        texts.extend(self.env.iter().cloned());
        let text = |(name, value): (String, Vec<u8>)| {
            let value =
                String::from_utf8(value).ok().with_context(|| format!("--env {name}: its value is not UTF-8"))?;
            Ok((name, value.replace('$', "$$")))
        };
        env::variables(&texts)?.into_iter().map(text).collect()
    }

    fn volumes(&self) -> Result<(Vec<Volume>, Vec<VolumeMount>)> {
        let (mut volumes, mut mounts) = (Vec::new(), Vec::new());
        for (i, text) in self.volume.iter().enumerate() {
            let wrong =
                || format!("--volume {text:?}: must be PATH:PATH, PATH:PATH:ro or PATH:PATH:rw, with absolute paths");
            let mut parts = text.split(':');
            let (host, inside) = (parts.next().with_context(wrong)?, parts.next().with_context(wrong)?);
            let read_only = match (parts.next(), parts.next()) {
                (None | Some("rw"), None) => false,
                (Some("ro"), None) => true,
                _ => bail!("{}", wrong()),
            };
            if !host.starts_with('/') || !inside.starts_with('/') || text.split(['/', ':']).any(|part| part == "..") {
                bail!("{}", wrong());
            }
            let source = VolumeSource::HostPath { path: host.to_owned(), kind: HostPathKind::Any };
            volumes.push(Volume { name: format!("v{i}"), source });
            mounts.push(VolumeMount {
                volume: i,
                path: inside.to_owned(),
                read_only,
                recursive: RecursiveReadOnly::Disabled,
                propagation: Propagation::None,
            });
        }
        Ok((volumes, mounts))
    }
}

/// The last part of a repository, as a DNS label.
fn base_name(repository: &str) -> String {
    let last = repository.rsplit('/').next().unwrap_or_default();
    let label: String = last.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).take(40).collect();
    let label = label.trim_matches('-').to_owned();
    if label.is_empty() { "container".to_owned() } else { label }
}

fn label(text: &str) -> Result<(String, String)> {
    let (key, value) = text.split_once('=').unwrap_or((text, ""));
    if key.is_empty() {
        bail!("--label {text:?}: must be KEY=VALUE");
    }
    Ok((key.to_owned(), value.to_owned()))
}

fn user_of(text: &str) -> Result<(Option<u32>, Option<u32>)> {
    let (user, group) = text.split_once(':').map_or((text, None), |(user, group)| (user, Some(group)));
    let number = |text: &str| {
        text.parse().ok().with_context(|| format!("--user {text:?}: must be a number; names are for `berth exec -u`"))
    };
    Ok((Some(number(user)?), group.map(number).transpose()?))
}

fn port(text: &str, host_network: bool) -> Result<Port> {
    let wrong =
        || format!("--publish {text:?}: must be [[ADDRESS:]PORT:]PORT[/tcp|/udp|/sctp], with ports from 1 to 65535");
    if host_network {
        bail!("--publish is not possible together with --network host: all ports are the node's");
    }
    let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = match protocol.to_ascii_lowercase().as_str() {
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        "sctp" => Protocol::Sctp,
        _ => bail!("{}", wrong()),
    };
    let number = |text: &str| text.parse::<u16>().ok().filter(|n| *n > 0).with_context(wrong);
    let (rest, inside) = ports.rsplit_once(':').map_or((None, ports), |(rest, inside)| (Some(rest), inside));
    let container_port = number(inside)?;
    let (address, host) = match rest {
        None => ("", inside),
        Some(rest) => rest.rsplit_once(':').unwrap_or(("", rest)),
    };
    let host_ip = match address.trim_start_matches('[').trim_end_matches(']') {
        "" => String::new(),
        address => address.parse::<IpAddr>().ok().with_context(wrong)?.to_string(),
    };
    Ok(Port { container_port, host_port: Some(number(host)?), host_ip, protocol })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[arg(short = 'f', long = "file")]
        files: Vec<String>,
        #[command(flatten)]
        image: ImageOptions,
    }

    fn pod(line: &str) -> Result<Pod> {
        let words = std::iter::once("run").chain(line.split(' '));
        let parsed = Line::try_parse_from(words)?;
        assert!(parsed.files.is_empty());
        parsed.image.pod("0a1b")
    }

    #[test]
    fn a_line_of_docker_is_a_pod() {
        let pod = pod("-it --rm -p 8080:80 -p 127.0.0.1:53:53/udp -v /srv:/data:ro -e A=1$x -m 128m --cpus 0.5 -u 7:8 -w /w -l app=x \
                       --cap-add cap_net_admin registry.example/team/web_app:1 -c echo")
        .unwrap();
        assert_eq!((pod.name.as_str(), pod.namespace.as_str()), ("web-app-0a1b", "default"));
        let c = &pod.containers[0];
        assert_eq!((c.args.join(" ").as_str(), c.tty, c.stdin, c.working_dir.as_str()), ("-c echo", true, true, "/w"));
        assert_eq!(c.env, [("A".to_owned(), "1$$x".to_owned())]);
        assert_eq!(
            (c.resources.memory_limit, c.resources.cpu_limit, c.resources.memory_request),
            (Some(128 << 20), Some(500), Some(128 << 20))
        );
        assert_eq!((c.security.common.run_as_user, c.security.common.run_as_group), (Some(7), Some(8)));
        assert_eq!(
            (c.ports[0].host_port, c.ports[0].container_port, c.ports[1].protocol),
            (Some(8080), 80, Protocol::Udp)
        );
        assert_eq!(
            (c.ports[1].host_ip.as_str(), c.security.add.as_slice()),
            ("127.0.0.1", ["NET_ADMIN".to_owned()].as_slice())
        );
        assert!(c.mounts[0].read_only && pod.labels["app"] == "x" && pod.host_users);
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (line, part) in [
            ("-p x web:1", "--publish \"x\": must be"),
            ("-p 0:80 web:1", "--publish"),
            ("--network host -p 80 web:1", "not possible together"),
            ("-v srv:/data web:1", "--volume \"srv:/data\": must be"),
            ("-v /srv:/a/../b web:1", "--volume"),
            ("-u me web:1", "must be a number"),
            ("--name A_B web:1", "--name \"A_B\""),
            ("-w srv web:1", "absolute"),
            ("-m x web:1", "is not a size"),
            ("-d --rm web:1", "cannot be used with"),
            ("-l =x web:1", "--label"),
            ("-e =secret web:1", "with a NAME"),
        ] {
            let error = format!("{:#}", pod(line).unwrap_err());
            assert!(error.contains(part), "{line}: {error}");
        }
    }
}
