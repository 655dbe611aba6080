//! RuntimeConfig (the call): the cgroup driver, constant until the daemon restarts.
use berth_cgroups::Driver;
use berth_engine::Engine;
use berth_proto::cri as wire;
use std::sync::Arc;

pub(crate) fn call(engine: &Arc<Engine>) -> wire::RuntimeConfigResponse {
    let driver = match engine.cgroup_driver() {
        Driver::Systemd => wire::CgroupDriver::Systemd,
        Driver::Cgroupfs => wire::CgroupDriver::Cgroupfs,
    };
    wire::RuntimeConfigResponse { linux: Some(wire::LinuxRuntimeConfiguration { cgroup_driver: driver as i32 }) }
}
