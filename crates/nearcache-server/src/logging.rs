//! What happens, as lines on standard error: one per event, for people or for machines.
//!
//! Keys, values and tokens are never logged.

use std::fmt;
use std::io::IsTerminal;

use serde::Serialize;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::FmtContext;
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::{LogConfig, LogFormat};

/// Starts logging for the whole process; a second call changes nothing.
pub(crate) fn start(config: &LogConfig) {
    let filter: Targets = config.level.parse().unwrap_or_default();
    // hyper warns of every client that is slow to send; that is counted, not logged.
    let filter = filter.with_target("hyper", tracing::Level::ERROR);
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let registry = tracing_subscriber::registry().with(filter);
    let _ = match config.format {
        LogFormat::Text => {
            let ansi = std::io::stderr().is_terminal();
            registry
                .with(layer.with_ansi(ansi).with_target(false))
                .try_init()
        }
        LogFormat::Json => registry.with(layer.event_format(JsonLines)).try_init(),
    };
}

/// Formats each event as one JSON object.
struct JsonLines;

#[derive(Serialize)]
struct Line<'a> {
    time: &'a str,
    level: &'a str,
    target: &'a str,
    #[serde(flatten)]
    fields: serde_json::Map<String, serde_json::Value>,
}

impl<S, N> FormatEvent<S, N> for JsonLines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut time = String::new();
        SystemTime.format_time(&mut Writer::new(&mut time))?;
        let mut fields = Fields::default();
        event.record(&mut fields);
        let metadata = event.metadata();
        let line = Line {
            time: &time,
            level: metadata.level().as_str(),
            target: metadata.target(),
            fields: fields.0,
        };
        writeln!(
            writer,
            "{}",
            serde_json::to_string(&line).map_err(|_| fmt::Error)?
        )
    }
}

/// The fields of an event, by name; its text is called `message`.
#[derive(Default)]
struct Fields(serde_json::Map<String, serde_json::Value>);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0
            .insert(field.name().to_owned(), format!("{value:?}").into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name().to_owned(), value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.0.insert(field.name().to_owned(), value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.0.insert(field.name().to_owned(), value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.0.insert(field.name().to_owned(), value.into());
    }
}
