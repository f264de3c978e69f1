//! The prompt of `twinlake sql`: history, completion, statements over several lines.

use std::borrow::Cow;
use std::path::PathBuf;

use anyhow::Result;
use rustyline::completion::Completer;
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::validate::{ValidationContext, ValidationResult, Validator};
use rustyline::{Config, Context, Editor, Helper};

/// The words that are always completed, beside the names in the catalog.
const KEYWORDS: &[&str] = &[
    "SELECT",
    "FROM",
    "WHERE",
    "GROUP BY",
    "ORDER BY",
    "LIMIT",
    "JOIN",
    "USING",
    "HAVING",
    "DISTINCT",
    "COUNT",
    "WITH",
    "SET twin.as_of = '",
    "SET twin.known_at = '",
    "SET twin.scenario = '",
    "RESET twin.as_of",
    "SHOW",
    "EXPLAIN",
    "TIMESTAMP '",
    "twin_at('",
    "simulate('",
];

/// What the user typed.
pub enum Line {
    /// A whole statement, without its semicolon.
    Statement(String),
    /// A backslash command, without the backslash.
    Command(String),
    /// End of input.
    End,
}

/// A prompt with history.
pub struct Prompt {
    editor: Editor<Names, rustyline::history::FileHistory>,
    history: Option<PathBuf>,
}

impl Prompt {
    /// A prompt that completes `names` (tables, columns, functions).
    pub fn new(names: Vec<String>) -> Result<Self> {
        let config = Config::builder().auto_add_history(true).max_history_size(10_000)?.build();
        let mut editor = Editor::with_config(config)?;
        editor.set_helper(Some(Names(names)));
        let history = history_file();
        if let Some(file) = &history {
            // A missing history is the first run, not an error.
            let _ = editor.load_history(file);
        }
        Ok(Self { editor, history })
    }

    /// Reads the next statement or command. Ctrl-C clears the line.
    pub fn next(&mut self) -> Result<Line> {
        loop {
            match self.editor.readline("twinlake> ") {
                Ok(text) => {
                    let text = text.trim();
                    if text.is_empty() {
                        continue;
                    }
                    if let Some(command) = text.strip_prefix('\\') {
                        return Ok(Line::Command(command.to_owned()));
                    }
                    if matches!(text.trim_end_matches(';'), "quit" | "exit") {
                        return Ok(Line::End);
                    }
                    return Ok(Line::Statement(text.trim_end_matches(';').to_owned()));
                }
                Err(ReadlineError::Interrupted) => {}
                Err(ReadlineError::Eof) => return Ok(Line::End),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Keeps the history for the next time.
    pub fn close(mut self) {
        if let Some(file) = &self.history {
            if let Some(folder) = file.parent() {
                let _ = std::fs::create_dir_all(folder);
            }
            if let Err(error) = self.editor.save_history(file) {
                tracing::warn!("the history was not saved: {error}");
            }
        }
    }
}

/// `$XDG_STATE_HOME/twinlake/history`, by default below `~/.local/state`.
fn history_file() -> Option<PathBuf> {
    let state = std::env::var_os("XDG_STATE_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".local/state")))?;
    Some(state.join("twinlake/history"))
}

struct Names(Vec<String>);

impl Helper for Names {}
impl Hinter for Names {
    type Hint = String;
}
impl Highlighter for Names {
    fn highlight_prompt<'b, 's: 'b, 'p: 'b>(&'s self, prompt: &'p str, _default: bool) -> Cow<'b, str> {
        Cow::Borrowed(prompt)
    }
}

impl Validator for Names {
    /// A statement ends with a semicolon; until then Enter starts a new line.
    fn validate(&self, context: &mut ValidationContext<'_>) -> rustyline::Result<ValidationResult> {
        let text = context.input().trim();
        let whole = text.is_empty()
            || text.starts_with('\\')
            || text.ends_with(';')
            || matches!(text, "quit" | "exit");
        Ok(if whole { ValidationResult::Valid(None) } else { ValidationResult::Incomplete })
    }
}

impl Completer for Names {
    type Candidate = String;

    fn complete(
        &self,
        line: &str,
        position: usize,
        _: &Context<'_>,
    ) -> rustyline::Result<(usize, Vec<String>)> {
        Ok(complete(&self.0, line, position))
    }
}

/// Where the word under the cursor starts, and what it may become.
fn complete(names: &[String], line: &str, position: usize) -> (usize, Vec<String>) {
    let before = line.get(..position).unwrap_or(line);
    let start = before.rfind(|c: char| !(c.is_alphanumeric() || c == '_' || c == '.')).map_or(0, |at| at + 1);
    let word = before[start..].to_lowercase();
    if word.is_empty() {
        return (position, Vec::new());
    }
    let mut candidates: Vec<String> = names
        .iter()
        .map(String::as_str)
        .chain(KEYWORDS.iter().copied())
        .filter(|name| name.to_lowercase().starts_with(&word))
        .map(str::to_owned)
        .collect();
    candidates.sort();
    candidates.dedup();
    (start, candidates)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn completes_tables_and_keywords_under_the_cursor() {
        let names = ["twin.vehicle".to_owned(), "traffic.vehicle_position".to_owned()];
        assert_eq!(complete(&names, "select * from twin.v", 20), (14, vec!["twin.vehicle".to_owned()]));
        assert_eq!(complete(&names, "sel", 3).1, ["SELECT"]);
        assert_eq!(complete(&names, "select ", 7).1, Vec::<String>::new());
    }
}
