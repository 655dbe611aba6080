//! ContainerConfig.
use super::security::mappings;
use super::{bounded, enumeration, required, resources, security, signal_number, text};
use berth_model::{
    ContainerConfig, ContainerMetadata, Device, Error, ImageMount, Mount, MountOptions, Propagation, Result, StopSignal,
};
use berth_proto::cri as wire;

/// Decodes a container's configuration.
pub(crate) fn container_config(config: Option<wire::ContainerConfig>) -> Result<ContainerConfig> {
    let config = required("config", config)?;
    let metadata = required("config.metadata", config.metadata)?;
    let image = required("config.image", config.image)?;
    if let Some(device) = config.cdi_devices.first() {
        let problem = format!("CDI device {:?} is not supported by this version", device.name);
        return Err(Error::invalid("config.CDI_devices", problem));
    }
    let linux = config.linux.unwrap_or_default();
    Ok(ContainerConfig {
        metadata: ContainerMetadata { name: text("config.metadata.name", metadata.name)?, attempt: metadata.attempt },
        image: text("config.image.image", image.image)?,
        user_image: bounded("config.image.user_specified_image", image.user_specified_image)?,
        command: config.command,
        args: config.args,
        working_dir: bounded("config.working_dir", config.working_dir)?,
        env: config.envs.into_iter().map(|e| (e.key, e.value)).collect(),
        mounts: config.mounts.into_iter().enumerate().map(|(i, m)| mount(i, m)).collect::<Result<_>>()?,
        devices: config
            .devices
            .into_iter()
            .map(|d| Device { container_path: d.container_path, host_path: d.host_path, permissions: d.permissions })
            .collect(),
        labels: config.labels.into_iter().collect(),
        annotations: config.annotations.into_iter().collect(),
        log_path: bounded("config.log_path", config.log_path)?,
        stdin: config.stdin,
        stdin_once: config.stdin_once,
        tty: config.tty,
        resources: resources("config.linux.resources", linux.resources.unwrap_or_default())?,
        security: security::container(linux.security_context.unwrap_or_default())?,
        stop_signal: signal_number("config.stop_signal", config.stop_signal)?.map(StopSignal),
    })
}

fn mount(index: usize, mount: wire::Mount) -> Result<Mount> {
    let at = |name: &str| format!("config.mounts[{index}].{name}");
    let options = MountOptions::parse(mount.mount_options.iter().map(String::as_str)).map_err(|name| {
        Error::invalid(at("mount_options"), format!("{name:?} is none of {}", MountOptions::NAMES.join(", ")))
    })?;
    let propagation = match enumeration(&at("propagation"), mount.propagation)? {
        wire::MountPropagation::PropagationPrivate => Propagation::Private,
        wire::MountPropagation::PropagationHostToContainer => Propagation::HostToContainer,
        wire::MountPropagation::PropagationBidirectional => Propagation::Bidirectional,
    };
    let image = mount.image.filter(|i| !i.image.is_empty());
    Ok(Mount {
        container_path: text(&at("container_path"), mount.container_path)?,
        host_path: bounded(&at("host_path"), mount.host_path)?,
        readonly: mount.readonly,
        recursive_read_only: mount.recursive_read_only,
        selinux_relabel: mount.selinux_relabel,
        propagation,
        uid_mappings: mappings(&mount.uid_mappings),
        gid_mappings: mappings(&mount.gid_mappings),
        image: image.map(|i| ImageMount {
            image: i.image,
            user_image: i.user_specified_image,
            sub_path: mount.image_sub_path,
        }),
        options,
    })
}
