//! A TOML file being read: every key asked for by name, everything wrong noted with its line and column.
//!
//! Deserialising into structs would stop at the first error and know no more of it than a message. Here a part's reader
//! asks its [`Section`] for one key after the other and goes on after each problem; keys that nobody asked for are
//! unknown. A file with problems yields no value, so that readers may return anything in place of a bad one.

use std::cell::RefCell;
use std::ops::Range;
use std::path::Path;

use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use super::causes;
use super::error::{ConfigError, ConfigErrors, Position, Problem, nearest};
use super::key::{joined, key_at, quoted};
use super::placeholder;

/// Proof that a problem was noted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reported(());

/// Reads a file's text with `read`.
///
/// # Errors
/// All that is wrong with it.
pub(crate) fn read<T>(
    path: &Path,
    text: &str,
    read: impl FnOnce(&mut Section<'_>) -> Result<T, Reported>,
) -> Result<T, ConfigErrors> {
    let problems = Problems { text, found: RefCell::default() };
    let (root, syntax) = DeTable::parse_recoverable(text);
    for error in &syntax {
        let key = error.span().map(|span| key_at(text, span.start)).unwrap_or_default();
        problems.note(error.span(), key, Problem::Syntax(error.message().to_owned()));
    }
    if !syntax.is_empty() {
        // What cannot be parsed would only be reported as missing once more.
        return Err(ConfigErrors::new(path, causes::first(problems.found.into_inner())));
    }
    let place = Place { name: String::new(), span: None };
    let value = Section::read(place, Some(root.get_ref()), &problems, read);
    match (value, problems.found.into_inner()) {
        (Ok(value), errors) if errors.is_empty() => Ok(value),
        (Ok(_) | Err(Reported(())), errors) => Err(ConfigErrors::new(path, causes::first(errors))),
    }
}

#[derive(Debug)]
struct Problems<'d> {
    text: &'d str,
    found: RefCell<Vec<ConfigError>>,
}

impl Problems<'_> {
    fn note(&self, span: Option<Range<usize>>, key: String, problem: Problem) -> Reported {
        let position = span.map(|span| Position::of(self.text, span.start));
        self.found.borrow_mut().push(ConfigError { position, key, problem });
        Reported(())
    }
}

/// A table, what it is called and where it starts.
#[derive(Debug)]
pub(crate) struct Section<'d> {
    place: Place,
    table: Option<&'d DeTable<'d>>,
    asked: Vec<&'static str>,
    problems: &'d Problems<'d>,
}

#[derive(Debug)]
struct Place {
    name: String,
    span: Option<Range<usize>>,
}

impl<'d> Section<'d> {
    fn read<T>(
        place: Place,
        table: Option<&'d DeTable<'d>>,
        problems: &'d Problems<'d>,
        read: impl FnOnce(&mut Self) -> T,
    ) -> T {
        let mut section = Self { place, table, asked: Vec::new(), problems };
        let value = read(&mut section);
        section.report_unknown();
        value
    }

    fn report_unknown(&self) {
        for key in self.table.into_iter().flat_map(DeTable::keys) {
            let name: &str = key.get_ref();
            if !self.asked.contains(&name) {
                let problem = Problem::UnknownKey {
                    key: name.to_owned(),
                    section: self.place.name.clone(),
                    nearest: nearest(name, self.asked.iter().copied()).map(str::to_owned),
                };
                self.problems.note(Some(key.span()), self.path(name), problem);
            }
        }
    }

    /// Reads a key that may be absent. A bad value is noted, and none is returned.
    pub(crate) fn optional<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&DeValue<'_>) -> Result<T, Problem>,
    ) -> Option<T> {
        let (_, value) = self.ask(key)?;
        match read(value.get_ref()) {
            Ok(value) => Some(value),
            Err(problem) => {
                self.problems.note(Some(value.span()), self.path(key), problem);
                None
            }
        }
    }

    /// Reads a key that has a default. A bad value is noted, and the default is returned.
    pub(crate) fn or<T>(
        &mut self,
        key: &'static str,
        default: T,
        read: impl FnOnce(&DeValue<'_>) -> Result<T, Problem>,
    ) -> T {
        self.optional(key, read).unwrap_or(default)
    }

    /// Reads a key that must be there.
    ///
    /// # Errors
    /// When it is not, or is bad; either is noted.
    pub(crate) fn required<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&DeValue<'_>) -> Result<T, Problem>,
    ) -> Result<T, Reported> {
        let Some((_, value)) = self.ask(key) else {
            return Err(self.problems.note(self.place.span.clone(), self.path(key), Problem::Missing));
        };
        read(value.get_ref())
            .map_err(|problem| self.problems.note(Some(value.span()), self.path(key), problem))
    }

    /// Reads a list that may be absent. Bad elements are noted, each at its own line, and left out.
    pub(crate) fn list<T>(
        &mut self,
        key: &'static str,
        mut read: impl FnMut(&DeValue<'_>) -> Result<T, Problem>,
    ) -> Option<Vec<T>> {
        let (_, value) = self.ask(key)?;
        let Some(elements) = value.get_ref().as_array() else {
            self.mistyped(key, value, "a list");
            return None;
        };
        let mut list = Vec::with_capacity(elements.len());
        for (index, element) in elements.iter().enumerate() {
            match read(element.get_ref()) {
                Ok(element) => list.push(element),
                Err(problem) => {
                    let key = format!("{}[{index}]", self.path(key));
                    self.problems.note(Some(element.span()), key, problem);
                }
            }
        }
        Some(list)
    }

    /// Reads a list that may be absent but not empty.
    pub(crate) fn entries<T>(
        &mut self,
        key: &'static str,
        read: impl FnMut(&DeValue<'_>) -> Result<T, Problem>,
    ) -> Option<Vec<T>> {
        let list = self.table.and_then(|table| table.get(key)).and_then(|value| value.get_ref().as_array());
        if list.is_some_and(|list| list.is_empty()) {
            self.report_at(&[key], Problem::Empty);
        }
        self.list(key, read)
    }

    /// Reads the table of this name; where it is absent, as if it were empty.
    ///
    /// # Errors
    /// When it is no table, which is noted.
    pub(crate) fn section<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&mut Self) -> T,
    ) -> Result<T, Reported> {
        let name = self.path(key);
        let Some((found, value)) = self.ask(key) else {
            return Ok(Self::read(Place { name, span: None }, None, self.problems, read));
        };
        let Some(table) = value.get_ref().as_table() else {
            return Err(self.mistyped(key, value, "a section"));
        };
        let place = Place { name, span: Some(found.span()) };
        Ok(Self::read(place, Some(table), self.problems, read))
    }

    /// Reads each table in the table of this name; bad ones are left out. The name of each comes with it.
    pub(crate) fn named<T>(
        &mut self,
        key: &'static str,
        mut read: impl FnMut(&str, &mut Self) -> Result<T, Reported>,
    ) -> Vec<T> {
        let Some((_, value)) = self.ask(key) else { return Vec::new() };
        let Some(tables) = value.get_ref().as_table() else {
            self.mistyped(key, value, "a section of sections");
            return Vec::new();
        };
        let mut all = Vec::with_capacity(tables.len());
        for (found, value) in tables {
            let name = format!("{}.{}", self.path(key), quoted(found.get_ref()));
            let Some(table) = value.get_ref().as_table() else {
                let problem = Problem::Type { expected: "a section", found: value.get_ref().type_str() };
                self.problems.note(Some(found.span()), name, problem);
                continue;
            };
            let place = Place { name, span: Some(found.span()) };
            let read = |section: &mut Self| read(found.get_ref(), section);
            all.extend(Self::read(place, Some(table), self.problems, read));
        }
        all
    }

    /// Reads one table or a list of tables of this name; bad ones are left out.
    pub(crate) fn each<T>(
        &mut self,
        key: &'static str,
        mut read: impl FnMut(&mut Self) -> Result<T, Reported>,
    ) -> Vec<T> {
        let Some((found, value)) = self.ask(key) else { return Vec::new() };
        if value.get_ref().is_table() {
            return self.one(self.path(key), found.span(), value, &mut read).into_iter().collect();
        }
        let Some(elements) = value.get_ref().as_array() else {
            self.mistyped(key, value, "a section or a list of sections");
            return Vec::new();
        };
        let named = |index| format!("{}[{index}]", self.path(key));
        elements
            .iter()
            .enumerate()
            .filter_map(|(index, element)| self.one(named(index), element.span(), element, &mut read).ok())
            .collect()
    }

    fn one<T>(
        &self,
        name: String,
        span: Range<usize>,
        value: &'d Spanned<DeValue<'d>>,
        read: &mut impl FnMut(&mut Self) -> Result<T, Reported>,
    ) -> Result<T, Reported> {
        let Some(table) = value.get_ref().as_table() else {
            let problem = Problem::Type { expected: "a section", found: value.get_ref().type_str() };
            return Err(self.problems.note(Some(span), name, problem));
        };
        Self::read(Place { name, span: Some(span) }, Some(table), self.problems, read)
    }

    /// The keys, with their sections, whose text still has to be replaced by whoever fills the file in.
    pub(crate) fn placeholders(&self) -> Vec<String> {
        let mut found = Vec::new();
        for (key, value) in self.table.into_iter().flatten() {
            placeholder::find(value.get_ref(), joined(&self.place.name, key.get_ref()), &mut found);
        }
        found
    }

    /// Notes a problem with this section itself.
    pub(crate) fn report(&self, problem: Problem) -> Reported {
        self.problems.note(self.place.span.clone(), self.place.name.clone(), problem)
    }

    /// Notes a problem with what is at the end of `keys`, from here inwards.
    pub(crate) fn report_at(&self, keys: &[&str], problem: Problem) -> Reported {
        let mut table = self.table;
        let mut span = self.place.span.clone();
        let mut path = self.place.name.clone();
        for key in keys {
            path = joined(&path, key);
            let found = table.and_then(|table| table.get_key_value(*key));
            span = found.map(|(key, _)| key.span()).or(span);
            table = found.and_then(|(_, value)| value.get_ref().as_table());
        }
        self.problems.note(span, path, problem)
    }

    fn ask(&mut self, key: &'static str) -> Option<(&'d Spanned<DeString<'d>>, &'d Spanned<DeValue<'d>>)> {
        self.asked.push(key);
        self.table?.get_key_value(key)
    }

    fn mistyped(&self, key: &str, value: &Spanned<DeValue<'_>>, expected: &'static str) -> Reported {
        let problem = Problem::Type { expected, found: value.get_ref().type_str() };
        self.problems.note(Some(value.span()), self.path(key), problem)
    }

    fn path(&self, key: &str) -> String {
        joined(&self.place.name, key)
    }
}
