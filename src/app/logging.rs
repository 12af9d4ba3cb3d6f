//! The log: which lines are written, and in which form.

use tracing_subscriber::{
    EnvFilter,
    fmt::{FormatFields, MakeWriter, fmt},
};

use super::config::{LogConfig, LogFormat};
use crate::{store, telemetry::WithRequestId};

/// Begins to write the lines that are wished to `output`, in colour if `ansi`; for people `fields` writes what they hold.
pub(crate) fn start(
    log: &LogConfig,
    (format, ansi): (LogFormat, bool),
    output: impl for<'w> MakeWriter<'w> + Send + Sync + 'static,
    fields: impl for<'w> FormatFields<'w> + Send + Sync + 'static,
) -> anyhow::Result<()> {
    let lines = fmt()
        .with_env_filter(EnvFilter::try_new(format!("{},{}", store::LOG_FILTER, log.rust_log))?)
        .with_writer(output)
        .log_internal_errors(false)
        .with_ansi(ansi);
    match format {
        LogFormat::Text => {
            let lines = lines.with_target(false).fmt_fields(fields);
            lines.map_event_format(|lines| WithRequestId::text(lines, ansi)).init();
        }
        LogFormat::Json => lines.json().flatten_event(true).map_event_format(WithRequestId::json).init(),
    }
    // A panic is a line of the log like any other failure.
    std::panic::set_hook(Box::new(|panic| tracing::error!("{panic}")));
    Ok(())
}
