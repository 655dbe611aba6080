//! `berth version`: of this program, and of the daemon.
use crate::commands::connect::{self, said};
use crate::commands::output::{self, Document, Format};
use crate::layout::Layout;
use anyhow::Result;
use berth_proto::cri as wire;
use serde::Serialize;

/// How to show it.
#[derive(clap::Args)]
#[command(
    after_long_help = "Fields of -o json and -o yaml: client.version, server.version, server.name, server.cri.\nWithout a \
daemon the client's version is shown, and the exit code is 1."
)]
pub struct Options {
    /// How to show it
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value_t)]
    output: Format,
    /// TEMPLATE of those fields, or `json`
    #[arg(short, long, value_name = "TEMPLATE", conflicts_with = "output")]
    format: Option<String>,
    /// Only this program's own; needs no daemon
    #[arg(long)]
    client: bool,
}

#[derive(Serialize)]
struct Versions {
    client: Client,
    #[serde(skip_serializing_if = "Option::is_none")]
    server: Option<Server>,
}

#[derive(Serialize)]
struct Client {
    version: &'static str,
}

#[derive(Serialize)]
struct Server {
    name: String,
    version: String,
    cri: String,
}

/// Shows both.
pub async fn run(layout: Result<Layout>, options: &Options) -> Result<()> {
    let asked = match layout {
        _ if options.client => Ok(None),
        Ok(layout) => server(&layout).await.map(Some),
        Err(e) => Err(e),
    };
    let (server, error) = match asked {
        Ok(server) => (server, None),
        Err(e) => (None, Some(e)),
    };
    show(&Versions { client: Client { version: berth_engine::VERSION }, server }, options)?;
    error.map_or(Ok(()), Err)
}

async fn server(layout: &Layout) -> Result<Server> {
    let (mut runtime, _) = connect::cri(layout).await?;
    let v = runtime.version(wire::VersionRequest::default()).await.map_err(said)?.into_inner();
    Ok(Server { name: v.runtime_name, version: v.runtime_version, cri: v.runtime_api_version })
}

fn show(versions: &Versions, options: &Options) -> Result<()> {
    if let Some(format) = &options.format {
        return output::line(output::template::of_document(format, versions)?);
    }
    match options.output {
        Format::Json => output::document(versions, Document::Json),
        Format::Yaml => output::document(versions, Document::Yaml),
        Format::Table | Format::Wide => {
            output::line(format_args!("Client: berth {}", versions.client.version))?;
            match &versions.server {
                Some(s) => output::line(format_args!("Server: {} {} (CRI {})", s.name, s.version, s.cri)),
                None => Ok(()),
            }
        }
    }
}
