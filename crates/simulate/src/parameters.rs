//! Values of parameters, read: as they are, or, as command lines give them, as text.

use serde_json::Value;
use twinlake_contracts::{Error, Parameters, Result};

/// A number; `wanted` says in an error what is allowed.
pub(crate) fn number(
    parameters: &Parameters,
    name: &str,
    wanted: &str,
    allowed: impl Fn(f64) -> bool,
) -> Result<f64> {
    let value = &parameters[name];
    let number = match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    };
    number
        .filter(|number: &f64| number.is_finite() && allowed(*number))
        .ok_or_else(|| Error::config(format!("parameter {name} = {value} must be {wanted}")))
}

/// A truth value.
pub(crate) fn flag(parameters: &Parameters, name: &str) -> Result<bool> {
    match &parameters[name] {
        Value::Bool(flag) => Ok(*flag),
        Value::String(text) if text == "true" => Ok(true),
        Value::String(text) if text == "false" => Ok(false),
        value => Err(Error::config(format!("parameter {name} = {value} must be true or false"))),
    }
}

/// One of a few words.
pub(crate) fn word(parameters: &Parameters, name: &str, words: &[&'static str]) -> Result<&'static str> {
    let value = &parameters[name];
    words.iter().find(|word| value.as_str() == Some(word)).copied().ok_or_else(|| {
        Error::config(format!("parameter {name} = {value} is unknown"))
            .with_help(format!("write one of: {}", words.join(", ")))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn text_of_a_command_line_is_read_and_all_else_refused_by_name() {
        let given = Parameters::from([
            ("a".to_owned(), json!(" 2.5 ")),
            ("b".to_owned(), json!("true")),
            ("c".to_owned(), json!("dc")),
        ]);
        assert_eq!(number(&given, "a", "any number", |_| true).unwrap(), 2.5);
        assert!(flag(&given, "b").unwrap());
        assert_eq!(word(&given, "c", &["ac", "dc"]).unwrap(), "dc");
        let said = number(&given, "a", "above 3", |value| value > 3.0).unwrap_err().to_string();
        assert!(said.contains("parameter a = \" 2.5 \" must be above 3"), "{said}");
        assert!(number(&given, "b", "a number", |_| true).is_err());
        assert!(flag(&given, "c").unwrap_err().to_string().contains("true or false"));
        let said = word(&given, "b", &["ac", "dc"]).unwrap_err().to_string();
        assert!(said.contains("write one of: ac, dc"), "{said}");
    }
}
