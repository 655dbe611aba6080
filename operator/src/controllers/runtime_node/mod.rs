//! RuntimeNode: one for each Node, made and removed with it.
//!
//! A Node of the same name with another UID is another machine: its RuntimeNode is made anew, and nothing that the old one said counts.
mod build;

use super::Context;
use crate::cluster::World;

/// One pass.
pub async fn reconcile(context: &Context, world: &World) -> Result<(), String> {
    let mut failed = Ok(());
    for change in build::changes(world) {
        let result = match &change {
            build::Change::Create(object) => context.writes.create(object.as_ref()).await,
            build::Change::Delete(object) => context.writes.delete(object.as_ref()).await,
        };
        // One node's trouble is no other's.
        if let Err(e) = result {
            failed = Err(e);
        }
    }
    failed
}
