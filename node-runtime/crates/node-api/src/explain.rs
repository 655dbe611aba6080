//! ExplainStart: where the time of a start went.
use berth_engine::{Engine, Line, LineKind};
use berth_model::Result;
use berth_proto::node as wire;
use berth_proto::node::start_line::Kind;

pub(crate) fn call(engine: &Engine, name: &str) -> Result<wire::ExplainStartResponse> {
    let report = engine.explain_start(name)?;
    Ok(wire::ExplainStartResponse {
        pod: report.pod,
        pod_id: report.pod_id,
        began: report.began,
        micros: report.micros,
        lines: report.lines.into_iter().map(line).collect(),
        advice: report.advice,
    })
}

fn line(line: Line) -> wire::StartLine {
    let kind = match line.kind {
        LineKind::Operation => Kind::Operation,
        LineKind::Step => Kind::Step,
        LineKind::Unaccounted => Kind::Unaccounted,
        LineKind::Between => Kind::Between,
    };
    wire::StartLine {
        kind: kind as i32,
        name: line.name,
        container: line.container,
        depth: line.depth,
        offset_micros: line.at,
        micros: line.micros,
        usual_micros: line.usual,
    }
}
