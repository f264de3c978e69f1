//! The text `ASOF JOIN` into a tree that [`super::relation`] plans.
//!
//! Two spellings are read: DuckDB's `a ASOF [LEFT] JOIN b ON a.key = b.key AND a.ts >= b.ts`, and Snowflake's
//! `a ASOF JOIN b MATCH_CONDITION (a.ts >= b.ts) [ON a.key = b.key]`, which keeps all rows of `a` as it does there.
//! The parser knows the second alone, and not for every dialect. So the words are replaced before parsing by others that
//! it knows (`GLOBAL`, which means nothing to a planner for one machine, and a call named `match_condition`), and what
//! was marked is made a relation of its own afterwards.

use std::ops::ControlFlow;

use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{
    self, Join, JoinConstraint, JoinOperator, Select, TableFactor, TableWithJoins, VisitMut, VisitorMut,
};
use datafusion::sql::sqlparser::dialect::Dialect;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan, Tokenizer, TokenizerError};

/// The function that stands for Snowflake's condition.
pub(super) const MATCH_CONDITION: &str = "match_condition";

/// Stands for `ON match_condition` while tokens are replaced; nobody writes it by accident.
const MARKED: &str = "\u{1}on";

/// The tokens of a text, with `ASOF JOIN` in words that every dialect's parser takes. Places are those of the text.
pub fn tokens(dialect: &dyn Dialect, sql: &str) -> Result<Vec<TokenWithSpan>, TokenizerError> {
    let mut tokens = Tokenizer::new(dialect, sql).tokenize_with_location()?;
    let keyword = |token: &TokenWithSpan| match &token.token {
        Token::Word(word) if word.quote_style.is_none() => word.keyword,
        _ => Keyword::NoKeyword,
    };
    let words: Vec<usize> =
        (0..tokens.len()).filter(|at| !matches!(tokens[*at].token, Token::Whitespace(_))).collect();
    let mut joins = 0;
    for (at, &place) in words.iter().enumerate() {
        let next =
            |ahead: usize| words.get(at + ahead).map_or(Keyword::NoKeyword, |place| keyword(&tokens[*place]));
        match keyword(&tokens[place]) {
            Keyword::ASOF if matches!(next(1), Keyword::JOIN | Keyword::LEFT | Keyword::INNER) => {
                tokens[place].token = Token::make_keyword("GLOBAL");
                joins += 1;
            }
            Keyword::MATCH_CONDITION if joins > 0 && is(&tokens, words.get(at + 1), &Token::LParen) => {
                let Some(end) = closing(&tokens, &words, at + 1) else { continue };
                let span = tokens[place].span;
                let followed =
                    words.get(end + 1).is_some_and(|place| keyword(&tokens[*place]) == Keyword::ON);
                if followed {
                    tokens[words[end + 1]].token = Token::make_keyword("AND");
                }
                // Two words in the place of one.
                tokens[place].token = Token::make_word(MARKED, None);
                tokens[place].span = span;
            }
            _ => {}
        }
    }
    if joins == 0 {
        return Ok(tokens);
    }
    let mut written = Vec::with_capacity(tokens.len() + joins);
    for token in tokens {
        let marks =
            matches!(&token.token, Token::Word(word) if word.quote_style.is_none() && word.value == MARKED);
        if marks {
            let named = Token::make_word(MATCH_CONDITION, None);
            written.push(TokenWithSpan { token: Token::make_keyword("ON"), span: token.span });
            written.push(TokenWithSpan { token: named, span: token.span });
        } else {
            written.push(token);
        }
    }
    Ok(written)
}

fn is(tokens: &[TokenWithSpan], place: Option<&usize>, wanted: &Token) -> bool {
    place.is_some_and(|place| tokens[*place].token == *wanted)
}

/// The word that closes the parenthesis at the word `open`.
fn closing(tokens: &[TokenWithSpan], words: &[usize], open: usize) -> Option<usize> {
    let mut depth = 0;
    for (at, place) in words.iter().enumerate().skip(open) {
        match tokens[*place].token {
            Token::LParen => depth += 1,
            Token::RParen => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some(at);
        }
    }
    None
}

/// Makes each `ASOF JOIN` of a statement, with all that stands left of it, a relation of its own.
pub fn mark(statement: &mut Statement) {
    match statement {
        Statement::Statement(statement) => mark_tree(statement),
        Statement::Explain(explain) => mark(&mut explain.statement),
        _ => {}
    }
}

fn mark_tree(statement: &mut ast::Statement) {
    let ControlFlow::Continue(()) = statement.visit(&mut Marker);
}

struct Marker;

impl VisitorMut for Marker {
    type Break = std::convert::Infallible;

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<Self::Break> {
        select.from.iter_mut().for_each(fold);
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<Self::Break> {
        if let TableFactor::NestedJoin { table_with_joins, .. } = factor
            && !is_marked(table_with_joins)
        {
            fold(table_with_joins);
        }
        ControlFlow::Continue(())
    }
}

/// Whether the last join of a nested relation, and no other, is an `ASOF JOIN`.
pub(super) fn is_marked(table: &TableWithJoins) -> bool {
    let Some((last, before)) = table.joins.split_last() else { return false };
    is_asof(last) && !before.iter().any(is_asof)
}

fn is_asof(join: &Join) -> bool {
    let known = matches!(
        join.join_operator,
        JoinOperator::Join(JoinConstraint::On(_))
            | JoinOperator::Inner(JoinConstraint::On(_))
            | JoinOperator::Left(JoinConstraint::On(_))
            | JoinOperator::LeftOuter(JoinConstraint::On(_))
    );
    join.global && known || matches!(join.join_operator, JoinOperator::AsOf { .. })
}

fn fold(table: &mut TableWithJoins) {
    if !table.joins.iter().any(is_asof) {
        return;
    }
    for join in std::mem::take(&mut table.joins) {
        let ends = is_asof(&join);
        table.joins.push(join);
        if ends {
            let inner =
                TableWithJoins { relation: table.relation.clone(), joins: std::mem::take(&mut table.joins) };
            table.relation = TableFactor::NestedJoin { table_with_joins: Box::new(inner), alias: None };
        }
    }
}

#[cfg(test)]
mod tests {
    use datafusion::sql::sqlparser::dialect::{GenericDialect, PostgreSqlDialect};
    use datafusion::sql::sqlparser::parser::Parser;

    use super::*;

    fn read(dialect: &dyn Dialect, sql: &str) -> String {
        let tokens = tokens(dialect, sql).unwrap();
        let mut statements =
            Parser::new(dialect).with_tokens_with_locations(tokens).parse_statements().unwrap();
        statements.iter_mut().for_each(mark_tree);
        statements.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn every_spelling_becomes_a_relation() {
        for (sql, expected) in [
            (
                "SELECT * FROM a ASOF JOIN b ON a.k = b.k AND a.t >= b.t",
                "SELECT * FROM (a GLOBAL JOIN b ON a.k = b.k AND a.t >= b.t)",
            ),
            (
                "SELECT * FROM a asof left join b AS x ON a.t > x.t JOIN c ON true",
                "SELECT * FROM (a GLOBAL LEFT JOIN b AS x ON a.t > x.t) JOIN c ON true",
            ),
            (
                "SELECT * FROM a ASOF JOIN b MATCH_CONDITION (a.t >= (b.t)) ON a.k = b.k WHERE a.k > 1",
                "SELECT * FROM (a GLOBAL JOIN b ON match_condition(a.t >= (b.t)) AND a.k = b.k) WHERE a.k > 1",
            ),
            (
                "SELECT * FROM c JOIN a ON true ASOF JOIN b MATCH_CONDITION (a.t >= b.t)",
                "SELECT * FROM (c JOIN a ON true GLOBAL JOIN b ON match_condition(a.t >= b.t))",
            ),
            (
                "SELECT (SELECT 1 FROM (a ASOF JOIN b ON a.t >= b.t ASOF JOIN c ON a.t >= c.t))",
                "SELECT (SELECT 1 FROM (((a GLOBAL JOIN b ON a.t >= b.t) GLOBAL JOIN c ON a.t >= c.t)))",
            ),
            (
                "SELECT asof, \"ASOF\" FROM t AS match_condition",
                "SELECT asof, \"ASOF\" FROM t AS match_condition",
            ),
        ] {
            assert_eq!(read(&GenericDialect {}, sql), expected, "{sql}");
            assert_eq!(read(&PostgreSqlDialect {}, sql), expected, "{sql}");
        }
    }
}
