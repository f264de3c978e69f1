//! The settings of one session, changed without the detour through SQL text.

use datafusion::config::ConfigOptions;
use datafusion::prelude::SessionContext;

/// Reads or changes the settings of a session; no other session sees it.
pub(crate) fn with_options<T>(context: &SessionContext, change: impl FnOnce(&mut ConfigOptions) -> T) -> T {
    let state = context.state_ref();
    let mut state = state.write();
    change(state.config_mut().options_mut())
}
