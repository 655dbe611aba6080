//! RuntimeNode: one for each Node, made and removed with it; and what keeps a node's agent from running, told on it.
//!
//! A Node of the same name with another UID is another machine: its RuntimeNode is made anew, and nothing that the old one said counts.
pub mod agents;
mod build;

use super::Context;
use crate::cluster::World;
use crate::cluster::writes::Done;
use crate::time;
use agents::{Said, agent, change};
use berth_crds::RuntimeNode;
use serde_json::json;

/// One pass.
pub async fn reconcile(context: &Context, world: &World, now: u64) -> Result<(), String> {
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
    for (name, object) in &world.runtime_nodes {
        let agent = world.agents.get(name).map(|pod| agent(pod));
        if let Some(said) = change(object.spec.agent_problem.as_ref(), agent.as_ref(), &time::text(now)) {
            failed = failed.and(tell(context, object, &said).await);
        }
    }
    failed
}

/// On the object, and by an event of it.
async fn tell(context: &Context, object: &RuntimeNode, said: &Said) -> Result<(), String> {
    let problem = if let Said::Problem(problem) = said { Some(problem) } else { None };
    if context.writes.patch(object, json!({"spec": {"agentProblem": problem}})).await? == Done::Stale {
        return Ok(());
    }
    match said {
        Said::Problem(problem) => context.events.warning(object, "AgentNotRunning", problem.message.clone()).await,
        Said::Over => context.events.normal(object, "AgentRuns", "its agent runs again".to_owned()).await,
        Said::Unknown => {}
    }
    Ok(())
}
