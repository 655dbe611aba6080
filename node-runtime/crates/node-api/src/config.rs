//! Config and DiffConfig: what the settings are, and what they would be with other documents.
use berth_engine::Engine;
use berth_model::{Error, Result};
use berth_proto::node as wire;
use berth_settings::{Change, Preset, among, diff as changes, fields, redact, sources};
use serde_json::Value;

/// Most files of one request; a directory holds no more.
const MAX_FILES: usize = 200;

pub(crate) fn call(engine: &Engine) -> wire::ConfigResponse {
    let standing = engine.standing();
    let settings = standing.wanted();
    let field = |field: &'static berth_settings::Field| {
        let entry = format!("{}[", field.path);
        let of = |path: &String| path == field.path || path.starts_with(&entry);
        let mut sources: Vec<String> = settings.sources.iter().filter(|(p, _)| of(p)).map(|(_, s)| s.clone()).collect();
        sources.sort();
        sources.dedup();
        wire::ConfigField {
            path: field.path.to_owned(),
            class: field.class.to_string(),
            value: json(field.value(&settings.spec)),
            default_value: match field.default {
                Preset::Is(json) => json.to_owned(),
                Preset::Words(words) => words.to_owned(),
            },
            sources,
        }
    };
    let policies = settings.policies.iter().map(|policy| wire::ConfigPolicy {
        name: policy.metadata.name.clone(),
        spec: json(serde_json::to_value(&policy.spec).ok()),
    });
    wire::ConfigResponse {
        fields: fields().map(field).collect(),
        policies: policies.collect(),
        documents: settings.documents.clone(),
        refused: standing.refused(),
        pending: standing.pending().into_iter().map(change).collect(),
        problems: standing.problems().into_iter().collect(),
    }
}

pub(crate) fn diff(engine: &Engine, request: wire::DiffConfigRequest) -> Result<wire::DiffConfigResponse> {
    if request.files.len() > MAX_FILES {
        return Err(Error::invalid("files", format!("are {}, the limit is {MAX_FILES}", request.files.len())));
    }
    let files: Vec<_> = request.files.into_iter().map(|file| (file.name.into(), file.text)).collect();
    let standing = engine.standing();
    // As the daemon reads its directory: what is in force is nothing new.
    let documents = sources(&files, &among(&standing.wanted().inputs))?;
    let wanted = standing.live().with(documents)?;
    let changes = changes(&standing.wanted(), &wanted).into_iter().map(change).collect();
    Ok(wire::DiffConfigResponse { changes })
}

/// With secrets redacted.
pub(crate) fn change(change: Change) -> wire::ConfigChange {
    wire::ConfigChange {
        field: change.field,
        class: change.class.to_string(),
        old: json(change.old),
        new: json(change.new),
    }
}

/// Secrets do not leave the daemon.
fn json(value: Option<Value>) -> String {
    value.map_or_else(String::new, |mut value| {
        redact(&mut value);
        value.to_string()
    })
}
