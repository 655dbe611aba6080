//! The log: lines on stderr, plain or JSON; the level follows the settings.
use berth_settings::LogLevel;
use std::io::IsTerminal;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt;

/// Changes the level of a running log.
pub struct Handle(reload::Handle<LevelFilter, tracing_subscriber::Registry>);

/// Starts logging at level Info. `BERTH_LOG` (error, warn, info, debug, trace) beats the settings, for people who look closely.
pub fn start(json: bool) -> Handle {
    let first = forced().unwrap_or(LevelFilter::INFO);
    let (filter, handle) = reload::Layer::new(first);
    let registry = tracing_subscriber::registry().with(filter);
    if json {
        registry.with(tracing_subscriber::fmt::layer().json().with_writer(std::io::stderr)).init();
    } else {
        let colours = std::io::stderr().is_terminal();
        registry.with(tracing_subscriber::fmt::layer().with_ansi(colours).with_writer(std::io::stderr)).init();
    }
    Handle(handle)
}

fn forced() -> Option<LevelFilter> {
    std::env::var("BERTH_LOG").ok()?.parse().ok()
}

impl Handle {
    /// Applies a level from the settings.
    pub fn set(&self, level: LogLevel) {
        let filter = match level {
            LogLevel::Error => LevelFilter::ERROR,
            LogLevel::Warn => LevelFilter::WARN,
            LogLevel::Info => LevelFilter::INFO,
            LogLevel::Debug => LevelFilter::DEBUG,
            LogLevel::Trace => LevelFilter::TRACE,
        };
        if forced().is_none()
            && let Err(e) = self.0.modify(|f| *f = filter)
        {
            tracing::error!(error = %e, "log level stays");
        }
    }
}
