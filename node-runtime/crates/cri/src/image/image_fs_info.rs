//! ImageFsInfo: images and writable layers share one file system.
use crate::encode::filesystem_usage;
use berth_engine::Engine;
use berth_model::Result;
use berth_proto::cri as wire;
use std::sync::Arc;

pub(crate) fn call(engine: &Arc<Engine>) -> Result<wire::ImageFsInfoResponse> {
    let (images, containers) = filesystem_usage(&engine.image_fs()?);
    Ok(wire::ImageFsInfoResponse { image_filesystems: vec![images], container_filesystems: vec![containers] })
}
