//! The section files of the configuration directory (`*.cfg`): reading and writing.
//! Format: `docs/formats/configuration.md`. What was not edited is written back as it was read.
//! Never gives a partial result: one bad line makes the whole file unusable.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::schema::{Properties, Schema};

/// One kind of section.
#[derive(Debug, Clone, Copy)]
pub struct SectionType {
    /// The word before the colon.
    pub name: &'static str,
    /// The rule for the id after the colon.
    pub id: &'static Schema,
    /// The key under which the API shows the id.
    pub id_property: &'static str,
    /// The properties of the section, without the id.
    pub properties: &'static Properties,
}

/// A section: its type, its id and its properties.
#[derive(Debug, Clone, PartialEq)]
pub struct Section {
    /// Name of its type.
    pub ty: &'static str,
    /// The properties as JSON values; texts are kept as they were written.
    pub properties: Map<String, Value>,
}

/// Why a section file cannot be read or written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SectionConfigError {
    /// The text breaks the format.
    #[error("parsing \"{path}\" failed: line {line} - {reason}")]
    Parse {
        /// The file as given by the caller.
        path: String,
        /// Line number, from 1.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// A section breaks its schema.
    #[error("writing \"{path}\" failed: {reason}")]
    Write {
        /// The file as given by the caller.
        path: String,
        /// What is wrong with which section.
        reason: String,
    },
}

/// The content of a section file.
#[derive(Debug, Clone)]
pub struct SectionConfig {
    types: &'static [SectionType],
    /// Ids in file order. An id that the file holds twice is here twice, as stock servers
    /// keep it.
    order: Vec<String>,
    sections: BTreeMap<String, Section>,
}

impl PartialEq for SectionConfig {
    fn eq(&self, other: &Self) -> bool {
        self.order == other.order && self.sections == other.sections
    }
}

impl SectionConfig {
    /// A file without sections.
    #[must_use]
    pub const fn empty(types: &'static [SectionType]) -> Self {
        Self {
            types,
            order: Vec::new(),
            sections: BTreeMap::new(),
        }
    }

    /// Reads the text of a file; `path` is only named in errors.
    ///
    /// # Errors
    /// The first line that breaks the format or the schema of its section type.
    pub fn parse(
        types: &'static [SectionType],
        path: &str,
        text: &str,
    ) -> Result<Self, SectionConfigError> {
        let mut config = Self::empty(types);
        let mut open: Option<OpenSection> = None;
        let mut number = 0;
        for line in text.lines() {
            number += 1;
            let step = config.parse_line(&mut open, line);
            step.map_err(|reason| parse_error(path, number, reason))?;
        }
        // The end of the file ends a section as an empty line after the last would.
        if let Some(section) = open {
            config
                .close(section)
                .map_err(|reason| parse_error(path, number, reason))?;
        }
        Ok(config)
    }

    fn parse_line(&mut self, open: &mut Option<OpenSection>, line: &str) -> Result<(), String> {
        if line.trim().is_empty() {
            return open.take().map_or(Ok(()), |section| self.close(section));
        }
        match open {
            None => *open = Some(self.parse_header(line)?),
            Some(section) => section.parse_property(line)?,
        }
        Ok(())
    }

    fn parse_header(&self, line: &str) -> Result<OpenSection, String> {
        let header = "syntax error (expected header)";
        if !line.starts_with(char::is_alphabetic) {
            return Err(header.to_string());
        }
        let (ty, id) = line.split_once(':').ok_or(header)?;
        let (ty, id) = (ty.trim(), id.trim());
        let ty = self
            .types
            .iter()
            .find(|known| known.name == ty)
            .ok_or_else(|| format!("unknown section type '{ty}'"))?;
        ty.id
            .parse_text(id)
            .map_err(|reason| format!("syntax error in section identifier: {reason}"))?;
        Ok(OpenSection {
            ty,
            id: id.to_string(),
            properties: Map::new(),
        })
    }

    fn close(&mut self, section: OpenSection) -> Result<(), String> {
        check_required(section.ty, &section.properties)?;
        self.order.push(section.id.clone());
        let stored = Section {
            ty: section.ty.name,
            properties: section.properties,
        };
        self.sections.insert(section.id, stored);
        Ok(())
    }

    /// The canonical text of the file; `path` is only named in errors.
    ///
    /// # Errors
    /// When a section breaks its schema or holds control characters.
    pub fn to_text(&self, path: &str) -> Result<String, SectionConfigError> {
        let mut out = String::new();
        for id in &self.order {
            let Some(section) = self.sections.get(id) else {
                continue;
            };
            if !out.is_empty() {
                out.push('\n');
            }
            self.write_section(id, section, &mut out)
                .map_err(|reason| SectionConfigError::Write {
                    path: path.to_string(),
                    reason,
                })?;
        }
        Ok(out)
    }

    fn write_section(&self, id: &str, section: &Section, out: &mut String) -> Result<(), String> {
        let ty = self
            .section_type(section.ty)
            .ok_or_else(|| format!("unknown section type '{}'", section.ty))?;
        ty.id
            .parse_text(id)
            .map_err(|error| format!("section '{id}': {error}"))?;
        check_no_control("id", id)?;
        check_properties(ty, &section.properties)
            .map_err(|error| format!("section '{id}': {error}"))?;
        out.push_str(&format!("{}: {id}\n", ty.name));
        let mut properties: Vec<(&String, &Value)> = section.properties.iter().collect();
        properties.sort_by_key(|(key, _)| key.as_bytes());
        for (key, value) in properties {
            match value {
                Value::Null => {}
                Value::Array(elements) => {
                    elements
                        .iter()
                        .try_for_each(|element| write_property(key, element, out))?;
                }
                value => write_property(key, value, out)?,
            }
        }
        Ok(())
    }

    fn section_type(&self, name: &str) -> Option<&'static SectionType> {
        self.types.iter().find(|ty| ty.name == name)
    }

    /// Whether there is no section.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sections.is_empty()
    }

    /// The section with this id.
    #[must_use]
    pub fn get(&self, id: &str) -> Option<&Section> {
        self.sections.get(id)
    }

    /// The section with this id if it is of type `ty`.
    #[must_use]
    pub fn get_typed(&self, ty: &str, id: &str) -> Option<&Section> {
        self.sections.get(id).filter(|section| section.ty == ty)
    }

    /// The section with this id, to be changed.
    pub fn get_mut(&mut self, id: &str) -> Option<&mut Section> {
        self.sections.get_mut(id)
    }

    /// All sections in file order, each once.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Section)> {
        let mut seen = std::collections::BTreeSet::new();
        self.order
            .iter()
            .filter(move |id| seen.insert(id.as_str()))
            .filter_map(|id| self.sections.get(id).map(|section| (id.as_str(), section)))
    }

    /// The sections of type `ty` in file order.
    pub fn of_type<'a>(&'a self, ty: &'a str) -> impl Iterator<Item = (&'a str, &'a Section)> {
        self.iter().filter(move |(_, section)| section.ty == ty)
    }

    /// Adds a section at the end, or replaces the one with the same id where it stands.
    ///
    /// # Errors
    /// When the type is none of this file's, or id or properties break its schema.
    pub fn set(
        &mut self,
        ty: &str,
        id: &str,
        properties: Map<String, Value>,
    ) -> Result<(), String> {
        let ty = self
            .section_type(ty)
            .ok_or_else(|| format!("unknown section type '{ty}'"))?;
        ty.id.parse_text(id)?;
        check_properties(ty, &properties)?;
        if !self.sections.contains_key(id) {
            self.order.push(id.to_string());
        }
        self.sections.insert(
            id.to_string(),
            Section {
                ty: ty.name,
                properties,
            },
        );
        Ok(())
    }

    /// Removes a section; tells whether there was one.
    pub fn remove(&mut self, id: &str) -> bool {
        self.order.retain(|own| own != id);
        self.sections.remove(id).is_some()
    }

    /// A section as the API shows it: its properties and its id.
    #[must_use]
    pub fn to_api(&self, id: &str) -> Option<Map<String, Value>> {
        let section = self.sections.get(id)?;
        let ty = self.section_type(section.ty)?;
        let mut map = section.properties.clone();
        map.insert(ty.id_property.to_string(), Value::String(id.to_string()));
        Some(map)
    }
}

fn parse_error(path: &str, line: usize, reason: String) -> SectionConfigError {
    SectionConfigError::Parse {
        path: path.to_string(),
        line,
        reason,
    }
}

struct OpenSection {
    ty: &'static SectionType,
    id: String,
    properties: Map<String, Value>,
}

impl OpenSection {
    fn parse_property(&mut self, line: &str) -> Result<(), String> {
        let syntax = "syntax error (expected section properties)";
        if !line.starts_with(char::is_whitespace) {
            return Err(syntax.to_string());
        }
        let line = line.trim_start();
        let (key, value) = line.split_once(char::is_whitespace).ok_or(syntax)?;
        let value = value.trim();
        let schema = match self.ty.properties.get(key) {
            Some(property) => property.schema,
            None if self.ty.properties.additional => &crate::schema::ANY_TEXT,
            None => return Err(format!("unknown property '{key}'")),
        };
        let failed = |reason: String| format!("property '{key}': {reason}");
        if let Schema::Array { items, .. } = schema {
            let element = items.parse_text(value).map_err(failed)?;
            match self
                .properties
                .entry(key)
                .or_insert_with(|| Value::Array(Vec::new()))
            {
                Value::Array(elements) => elements.push(element),
                _ => return Err(format!("duplicate property '{key}'")),
            }
        } else {
            if self.properties.contains_key(key) {
                return Err(format!("duplicate property '{key}'"));
            }
            let value = schema.of_stored().parse_text(value).map_err(failed)?;
            self.properties.insert(key.to_string(), value);
        }
        Ok(())
    }
}

fn check_required(ty: &SectionType, properties: &Map<String, Value>) -> Result<(), String> {
    let missing = ty
        .properties
        .list
        .iter()
        .find(|property| !property.optional && !properties.contains_key(property.name));
    match missing {
        Some(property) => Err(format!(
            "property '{}' is missing and it is not optional.",
            property.name
        )),
        None => Ok(()),
    }
}

fn check_properties(ty: &SectionType, properties: &Map<String, Value>) -> Result<(), String> {
    check_required(ty, properties)?;
    for (key, value) in properties.iter().filter(|(_, value)| !value.is_null()) {
        match ty.properties.get(key) {
            Some(property) => property
                .schema
                .of_stored()
                .verify(value)
                .map_err(|reason| format!("property '{key}': {reason}"))?,
            None if ty.properties.additional => {}
            None => return Err(format!("unknown property '{key}'")),
        }
    }
    Ok(())
}

fn check_no_control(what: &str, text: &str) -> Result<(), String> {
    if text.chars().any(char::is_control) {
        Err(format!("detected unexpected control character in {what}"))
    } else {
        Ok(())
    }
}

fn write_property(key: &str, value: &Value, out: &mut String) -> Result<(), String> {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Bool(value) => value.to_string(),
        Value::Number(number) => number.to_string(),
        _ => return Err(format!("property '{key}' has no text form")),
    };
    check_no_control(key, &text)?;
    out.push_str(&format!("\t{key} {text}\n"));
    Ok(())
}

#[cfg(test)]
mod tests;
