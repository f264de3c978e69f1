//! Running the statements of a case file.

use std::collections::BTreeMap;

use twinlake_contracts::{Error, Place, Result};

use super::columns::{IDX_BRANCH, IDX_BUS, IDX_GEN};
use super::syntax::{Kind, Source, Word, words};

/// A matrix by rows, with the line of the file in which each row begins.
#[derive(Debug, Clone, Default)]
pub(super) struct Matrix {
    pub(super) columns: usize,
    pub(super) values: Vec<f64>,
    pub(super) lines: Vec<usize>,
}

impl Matrix {
    pub(super) fn rows(&self) -> usize {
        self.values.len().checked_div(self.columns).unwrap_or(0)
    }
}

#[derive(Debug, Clone)]
enum Value {
    Number(f64),
    Matrix(Matrix),
    Text(String),
    Cells(Vec<String>),
}

/// The variables after all statements have run.
pub(super) struct Case<'a> {
    source: Source<'a>,
    /// What the function calls its result: `mpc`.
    result: &'a str,
    variables: BTreeMap<String, Value>,
}

impl<'a> Case<'a> {
    pub(super) fn read(text: &'a str, file: &'a str) -> Result<Self> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let source = Source { text, file };
        let words = words(source)?;
        let mut run =
            Run { words: &words, at: 0, case: Self { source, result: "", variables: BTreeMap::new() } };
        run.header()?;
        while run.at < words.len() {
            run.statement()?;
        }
        let case = run.case;
        match case.get("version") {
            Some(Value::Text(version)) if version == "2" => Ok(case),
            Some(Value::Number(2.0)) => Ok(case),
            _ => Err(super::refuse(file, "the case does not say mpc.version = '2'")
                .with_help("older cases are converted by MATPOWER's loadcase and savecase")),
        }
    }

    pub(super) fn file(&self) -> &str {
        self.source.file
    }

    fn get(&self, field: &str) -> Option<&Value> {
        self.variables.get(&format!("{}.{field}", self.result))
    }

    pub(super) fn scalar(&self, field: &str) -> Result<f64> {
        match self.get(field) {
            Some(Value::Number(number)) => Ok(*number),
            _ => Err(super::refuse(self.source.file, format!("the case has no number mpc.{field}"))),
        }
    }

    pub(super) fn matrix(&self, field: &str) -> Result<&Matrix> {
        match self.get(field) {
            Some(Value::Matrix(matrix)) => Ok(matrix),
            _ => Err(super::refuse(self.source.file, format!("the case has no matrix mpc.{field}"))),
        }
    }

    pub(super) fn cells(&self, field: &str) -> Option<&[String]> {
        match self.get(field) {
            Some(Value::Cells(cells)) => Some(cells),
            _ => None,
        }
    }

    pub(super) fn error_at_line(&self, line: usize, message: String) -> Error {
        let text = self.source.text.lines().nth(line.saturating_sub(1)).unwrap_or_default();
        Error::config(message).at(Place {
            file: Some(self.source.file.into()),
            line,
            column: 1,
            text: text.replace('\t', " ").trim_end().to_owned(),
            length: text.trim_end().chars().count().max(1),
        })
    }
}

/// Which rows or columns a subscript takes: all, or these, from 0.
enum Subscript {
    All,
    These(Vec<usize>),
}

struct Run<'w, 'a> {
    words: &'w [Word<'a>],
    at: usize,
    case: Case<'a>,
}

impl<'a> Run<'_, 'a> {
    fn peek(&self) -> Kind<'a> {
        self.words.get(self.at).map_or(Kind::NewLine, |word| word.kind)
    }

    fn takes(&mut self, symbol: &str) -> bool {
        let found = matches!(self.peek(), Kind::Symbol(found) if found == symbol);
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, symbol: &str) -> Result<()> {
        if self.takes(symbol) { Ok(()) } else { Err(self.error(format!("'{symbol}' is expected here"))) }
    }

    /// An error at the next word.
    fn error(&self, message: impl Into<String>) -> Error {
        self.error_at(self.at, message)
    }

    fn error_at(&self, word: usize, message: impl Into<String>) -> Error {
        let end = self.case.source.text.len();
        let (start, end) = self.words.get(word).map_or((end, end), |word| (word.start, word.end));
        self.case.source.error(start, end, message)
    }

    fn skip_empty(&mut self) {
        while self.at < self.words.len()
            && (self.peek() == Kind::NewLine || matches!(self.peek(), Kind::Symbol(";" | ",")))
        {
            self.at += 1;
        }
    }

    /// `function mpc = name`.
    fn header(&mut self) -> Result<()> {
        self.skip_empty();
        let help = "a case begins with 'function mpc = NAME' and then sets mpc.baseMVA, mpc.bus, mpc.gen, mpc.branch";
        if self.peek() != Kind::Name("function") {
            return Err(self.error("this is not a MATPOWER case").with_help(help));
        }
        self.at += 1;
        let Kind::Name(result) = self.peek() else {
            return Err(self
                .error("a case of format version 1 gives several matrices; only version 2 is read")
                .with_help("convert it by MATPOWER's loadcase and savecase"));
        };
        self.case.result = result;
        self.at += 1;
        self.expect("=")?;
        if !matches!(self.peek(), Kind::Name(_)) {
            return Err(self.error("the name of the case is expected here"));
        }
        self.at += 1;
        if self.takes("(") {
            self.expect(")")?;
        }
        self.end_of_statement()
    }

    fn end_of_statement(&mut self) -> Result<()> {
        if self.at >= self.words.len()
            || self.peek() == Kind::NewLine
            || matches!(self.peek(), Kind::Symbol(";" | ","))
        {
            self.at += 1;
            return Ok(());
        }
        Err(self.error("the end of the statement is expected here").with_help(UNDERSTOOD))
    }

    fn statement(&mut self) -> Result<()> {
        self.skip_empty();
        if self.at >= self.words.len() {
            return Ok(());
        }
        let first = self.at;
        match self.peek() {
            Kind::Name("end" | "return") => self.at += 1,
            Kind::Name("define_constants") => {
                self.at += 1;
                for (name, number) in IDX_BUS.iter().chain(&IDX_BRANCH).chain(&IDX_GEN) {
                    self.case.variables.insert((*name).to_owned(), Value::Number(*number));
                }
            }
            Kind::Name(name) => {
                self.at += 1;
                let subscripts = if self.takes("(") { Some((self.at, self.subscripts()?)) } else { None };
                if !self.takes("=") {
                    return Err(self.error_at(first, "this statement cannot be read").with_help(UNDERSTOOD));
                }
                let value_at = self.at;
                let value = self.sum()?;
                match subscripts {
                    None => {
                        self.case.variables.insert(name.to_owned(), value);
                    }
                    Some((at, subscripts)) => self.store(name, at, &subscripts, value_at, &value)?,
                }
            }
            Kind::Symbol("[") => self.constants()?,
            _ => return Err(self.error("this statement cannot be read").with_help(UNDERSTOOD)),
        }
        self.end_of_statement()
    }

    /// `[PQ, PV, …] = idx_bus`.
    fn constants(&mut self) -> Result<()> {
        self.at += 1;
        let mut names = Vec::new();
        loop {
            match self.peek() {
                Kind::Name(name) => names.push(name),
                Kind::Symbol(",") => {}
                Kind::Symbol("]") => break,
                _ => return Err(self.error("a name is expected here").with_help(UNDERSTOOD)),
            }
            self.at += 1;
        }
        self.at += 1;
        self.expect("=")?;
        let numbers: &[(&str, f64)] = match self.peek() {
            Kind::Name("idx_bus") => &IDX_BUS,
            Kind::Name("idx_brch") => &IDX_BRANCH,
            Kind::Name("idx_gen") => &IDX_GEN,
            _ => {
                let error = self.error("several names can be set only from idx_bus, idx_brch or idx_gen");
                return Err(error.with_help(UNDERSTOOD));
            }
        };
        if names.len() > numbers.len() {
            return Err(self.error(format!("it gives {} numbers, not {}", numbers.len(), names.len())));
        }
        self.at += 1;
        for (name, (_, number)) in names.into_iter().zip(numbers) {
            self.case.variables.insert(name.to_owned(), Value::Number(*number));
        }
        Ok(())
    }

    /// `mpc.bus(rows, columns) = value`.
    fn store(
        &mut self,
        name: &str,
        at: usize,
        subscripts: &[Subscript; 2],
        value_at: usize,
        value: &Value,
    ) -> Result<()> {
        let Some(Value::Matrix(matrix)) = self.case.variables.get(name) else {
            return Err(self.error_at(at, format!("'{name}' is not a matrix")));
        };
        let (rows, columns) = self.selected(matrix, subscripts, at)?;
        let fits = match value {
            Value::Number(_) => true,
            Value::Matrix(given) => given.rows() == rows.len() && given.columns == columns.len(),
            _ => false,
        };
        if !fits {
            return Err(
                self.error_at(value_at, "this does not fit the rows and columns that it is assigned to")
            );
        }
        if let Some(Value::Matrix(matrix)) = self.case.variables.get_mut(name) {
            for (i, &row) in rows.iter().enumerate() {
                for (j, &column) in columns.iter().enumerate() {
                    matrix.values[row * matrix.columns + column] = match value {
                        Value::Number(number) => *number,
                        Value::Matrix(given) => given.values[i * given.columns + j],
                        _ => f64::NAN,
                    };
                }
            }
        }
        Ok(())
    }

    fn selected(&self, matrix: &Matrix, of: &[Subscript; 2], at: usize) -> Result<(Vec<usize>, Vec<usize>)> {
        let take = |subscript: &Subscript, size: usize, what: &str| match subscript {
            Subscript::All => Ok((0..size).collect()),
            Subscript::These(these) => match these.iter().find(|index| **index >= size) {
                Some(beyond) => {
                    Err(self.error_at(at, format!("there is no {what} {}; there are {size}", beyond + 1)))
                }
                None => Ok(these.clone()),
            },
        };
        Ok((take(&of[0], matrix.rows(), "row")?, take(&of[1], matrix.columns, "column")?))
    }

    /// `rows, columns)`, each a `:`, a number or a list.
    fn subscripts(&mut self) -> Result<[Subscript; 2]> {
        let rows = self.subscript()?;
        self.expect(",")?;
        let columns = self.subscript()?;
        self.expect(")")?;
        Ok([rows, columns])
    }

    fn subscript(&mut self) -> Result<Subscript> {
        if self.takes(":") {
            return Ok(Subscript::All);
        }
        let at = self.at;
        let numbers = match self.sum()? {
            Value::Number(number) => vec![number],
            Value::Matrix(matrix) if matrix.rows() == 1 => matrix.values,
            _ => return Err(self.error_at(at, "a row or column number is expected here")),
        };
        let index = |number: f64| {
            (number.fract() == 0.0 && (1.0..1e9).contains(&number)).then(|| number as usize - 1).ok_or(number)
        };
        numbers.into_iter().map(index).collect::<Result<_, _>>().map(Subscript::These).map_err(|number| {
            self.error_at(at, format!("{number} is not a row or column number, which count from 1"))
        })
    }

    fn sum(&mut self) -> Result<Value> {
        let mut left = self.product()?;
        loop {
            let at = self.at;
            if self.takes("+") {
                let right = self.product()?;
                left = self.combine(at, left, right, |a, b| a + b)?;
            } else if self.takes("-") {
                let right = self.product()?;
                left = self.combine(at, left, right, |a, b| a - b)?;
            } else {
                return Ok(left);
            }
        }
    }

    fn product(&mut self) -> Result<Value> {
        let mut left = self.power()?;
        loop {
            let at = self.at;
            let Kind::Symbol(symbol @ ("*" | "/" | ".*" | "./")) = self.peek() else { return Ok(left) };
            self.at += 1;
            let right = self.power()?;
            let matrices = (is_matrix(&left), is_matrix(&right));
            if matches!((symbol, matrices), ("*", (true, true)) | ("/", (_, true))) {
                return Err(self
                    .error_at(at, format!("'{symbol}' of matrices is not among what this reader calculates"))
                    .with_help(UNDERSTOOD));
            }
            left = if symbol.ends_with('*') {
                self.combine(at, left, right, |a, b| a * b)?
            } else {
                self.combine(at, left, right, |a, b| a / b)?
            };
        }
    }

    fn power(&mut self) -> Result<Value> {
        if self.takes("-") {
            let at = self.at;
            let value = self.power()?;
            return self.combine(at, Value::Number(-1.0), value, |a, b| a * b);
        }
        self.takes("+");
        let mut base = self.primary()?;
        loop {
            let at = self.at;
            let elementwise = self.takes(".^");
            if !elementwise && !self.takes("^") {
                return Ok(base);
            }
            let exponent = self.primary()?;
            if !elementwise && (is_matrix(&base) || is_matrix(&exponent)) {
                return Err(self.error_at(at, "a power of a matrix is not among what this reader calculates"));
            }
            base = self.combine(at, base, exponent, f64::powf)?;
        }
    }

    fn primary(&mut self) -> Result<Value> {
        let at = self.at;
        match self.peek() {
            Kind::Number(number) => {
                self.at += 1;
                Ok(Value::Number(number))
            }
            Kind::Text(text) => {
                self.at += 1;
                Ok(Value::Text(text.to_owned()))
            }
            Kind::Symbol("(") => {
                self.at += 1;
                let value = self.sum()?;
                self.expect(")")?;
                Ok(value)
            }
            Kind::Symbol("[") => self.matrix_literal(),
            Kind::Symbol("{") => self.cell_literal(),
            Kind::Name(name) => {
                self.at += 1;
                let Some(value) = self.case.variables.get(name).cloned() else {
                    return Err(self
                        .error_at(at, format!("'{name}' is not known here"))
                        .with_help(UNDERSTOOD));
                };
                if !self.takes("(") {
                    return Ok(value);
                }
                let subscripts = self.subscripts()?;
                let Value::Matrix(matrix) = value else {
                    return Err(self.error_at(at, format!("'{name}' is not a matrix")));
                };
                let (rows, columns) = self.selected(&matrix, &subscripts, at)?;
                let cell = |row: usize, column: usize| matrix.values[row * matrix.columns + column];
                if let ([row], [column]) = (rows.as_slice(), columns.as_slice()) {
                    return Ok(Value::Number(cell(*row, *column)));
                }
                let values = rows.iter().flat_map(|&row| columns.iter().map(move |&column| (row, column)));
                Ok(Value::Matrix(Matrix {
                    columns: columns.len(),
                    values: values.map(|(row, column)| cell(row, column)).collect(),
                    lines: rows.iter().map(|&row| matrix.lines[row]).collect(),
                }))
            }
            _ => Err(self.error("a value is expected here").with_help(UNDERSTOOD)),
        }
    }

    /// `[1 2; 3 4]`: numbers with a sign, or names of scalars.
    fn matrix_literal(&mut self) -> Result<Value> {
        let opened = self.at;
        self.at += 1;
        let mut matrix = Matrix::default();
        let (mut width, mut line, mut counted) = (0, self.case.source.line(self.words[opened].start), opened);
        loop {
            if self.at >= self.words.len() {
                return Err(self.error_at(opened, "this matrix is not closed by ']'"));
            }
            let word = self.words[self.at];
            let mut ends_row = false;
            match word.kind {
                Kind::Number(number) => {
                    matrix.values.push(number);
                    width += 1;
                }
                Kind::Symbol(sign @ ("-" | "+")) => {
                    let next = self.words.get(self.at + 1).copied();
                    let Some(Word { kind: Kind::Number(number), start, .. }) = next else {
                        return Err(self.error("a number is expected after the sign"));
                    };
                    if start != word.end {
                        return Err(
                            self.error("a calculation inside a matrix is not among what this reader knows")
                        );
                    }
                    matrix.values.push(if sign == "-" { -number } else { number });
                    width += 1;
                    self.at += 1;
                }
                Kind::Name(name) => match self.case.variables.get(name) {
                    Some(Value::Number(number)) => {
                        matrix.values.push(*number);
                        width += 1;
                    }
                    _ => return Err(self.error(format!("'{name}' is not a number known here"))),
                },
                Kind::Symbol(",") => {}
                Kind::Symbol(";" | "]") | Kind::NewLine => ends_row = true,
                Kind::Symbol(_) | Kind::Text(_) => {
                    return Err(self.error("only numbers can stand in this matrix"));
                }
            }
            if ends_row {
                if width > 0 {
                    if matrix.columns != 0 && matrix.columns != width {
                        let message =
                            format!("this row has {width} numbers, the rows above {}", matrix.columns);
                        return Err(self.error_at(self.at - 1, message));
                    }
                    matrix.columns = width;
                    // Lines are counted on from the last row, not from the top of the file each time.
                    let between =
                        &self.case.source.text[self.words[counted].start..self.words[self.at - 1].start];
                    line += between.matches('\n').count();
                    counted = self.at - 1;
                    matrix.lines.push(line);
                    width = 0;
                }
                if word.kind == Kind::Symbol("]") {
                    self.at += 1;
                    return Ok(Value::Matrix(matrix));
                }
            }
            self.at += 1;
        }
    }

    /// `{'a'; 'b'}`.
    fn cell_literal(&mut self) -> Result<Value> {
        let opened = self.at;
        self.at += 1;
        let mut cells = Vec::new();
        loop {
            if self.at >= self.words.len() {
                return Err(self.error_at(opened, "this list is not closed by '}'"));
            }
            match self.peek() {
                Kind::Text(text) => cells.push(text.to_owned()),
                Kind::Number(number) => cells.push(number.to_string()),
                Kind::Symbol("," | ";") | Kind::NewLine => {}
                Kind::Symbol("}") => {
                    self.at += 1;
                    return Ok(Value::Cells(cells));
                }
                Kind::Symbol("[") => {
                    // Cells may hold matrices, which no power flow reads.
                    self.matrix_literal()?;
                    continue;
                }
                _ => return Err(self.error("only texts and numbers can stand in this list")),
            }
            self.at += 1;
        }
    }

    /// Element by element; a number goes with every element.
    fn combine(&self, at: usize, left: Value, right: Value, with: impl Fn(f64, f64) -> f64) -> Result<Value> {
        match (left, right) {
            (Value::Number(a), Value::Number(b)) => Ok(Value::Number(with(a, b))),
            (Value::Matrix(mut a), Value::Number(b)) => {
                a.values.iter_mut().for_each(|a| *a = with(*a, b));
                Ok(Value::Matrix(a))
            }
            (Value::Number(a), Value::Matrix(mut b)) => {
                b.values.iter_mut().for_each(|b| *b = with(a, *b));
                Ok(Value::Matrix(b))
            }
            (Value::Matrix(mut a), Value::Matrix(b)) if a.rows() == b.rows() && a.columns == b.columns => {
                a.values.iter_mut().zip(b.values).for_each(|(a, b)| *a = with(*a, b));
                Ok(Value::Matrix(a))
            }
            _ => Err(self.error_at(at, "these values do not go together")),
        }
    }
}

const UNDERSTOOD: &str = "understood are: mpc.NAME = VALUE, mpc.NAME(rows, columns) = VALUE, NAME = VALUE, \
                          [NAMES] = idx_bus, idx_gen or idx_brch, with + - * / ^ of numbers and columns; do the \
                          conversion in the numbers and leave the statement out";

fn is_matrix(value: &Value) -> bool {
    matches!(value, Value::Matrix(_))
}
