//! A page of documentation whose figures come from programs: what stands between two marks is replaced.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// A Markdown page.
pub struct Page {
    path: PathBuf,
    text: String,
}

fn marks(section: &str) -> (String, String) {
    (format!("<!-- {section} -->\n"), format!("<!-- end of {section} -->\n"))
}

impl Page {
    pub fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
        Ok(Self { path: path.to_owned(), text })
    }

    /// Puts `body` between the marks of the section, which the page must have.
    pub fn replace(&mut self, section: &str, body: &str) -> Result<()> {
        let (begin, end) = marks(section);
        let places = self.text.find(&begin).map(|at| at + begin.len()).zip(self.text.find(&end));
        let Some((from, to)) = places.filter(|(from, to)| from <= to) else {
            bail!("{} has no section between {} and {}", self.path.display(), begin.trim(), end.trim());
        };
        self.text.replace_range(from..to, &format!("{}\n", body.trim_end()));
        Ok(())
    }

    /// Replaces every section that a program has printed between marks of its own.
    pub fn replace_sections(&mut self, printed: &str) -> Result<()> {
        let mut found = 0;
        let mut rest = printed;
        while let Some((_, after)) = rest.split_once("<!-- ") {
            let (name, after) = after.split_once(" -->\n").context("a mark without its end")?;
            let (body, after) =
                after.split_once(&marks(name).1).with_context(|| format!("no end of {name}"))?;
            self.replace(name, body)?;
            found += 1;
            rest = after;
        }
        if found == 0 {
            bail!("the program printed no section for {}", self.path.display());
        }
        Ok(())
    }

    pub fn write(&self) -> Result<()> {
        fs::write(&self.path, &self.text).with_context(|| self.path.display().to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(text: &str) -> Page {
        Page { path: PathBuf::from("page.md"), text: text.to_owned() }
    }

    #[test]
    fn what_was_printed_takes_the_place_of_what_stood_there() {
        let mut page =
            page("a\n<!-- heads -->\nold\n<!-- end of heads -->\nb\n<!-- age -->\n<!-- end of age -->\n");
        page.replace_sections(
            "noise\n<!-- age -->\n| 1 |\n<!-- end of age -->\nmore\n<!-- heads -->\n| 2 |\n| 3 |\n<!-- end of heads -->\n",
        )
        .unwrap();
        assert_eq!(
            page.text,
            "a\n<!-- heads -->\n| 2 |\n| 3 |\n<!-- end of heads -->\nb\n<!-- age -->\n| 1 |\n<!-- end of age -->\n"
        );
    }

    #[test]
    fn a_section_that_the_page_does_not_have_is_named() {
        let mut page = page("<!-- heads -->\n<!-- end of heads -->\n");
        let said = page.replace("flows", "x").unwrap_err().to_string();
        assert!(said.contains("page.md has no section between <!-- flows -->"), "{said}");
        assert!(page.replace_sections("nothing").unwrap_err().to_string().contains("printed no section"));
        assert!(page.replace_sections("<!-- heads -->\n1\n").is_err());
    }
}
