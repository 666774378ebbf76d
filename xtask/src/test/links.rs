//! The links of the Markdown files: each leads to a file of the repository, and to a heading of it where it names one.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use pulldown_cmark::{Event, Parser, Tag, TagEnd};

use super::{Context, Outcome};

/// What one file has.
#[derive(Debug, Default)]
struct Page {
    links: Vec<String>,
    anchors: BTreeSet<String>,
}

pub(super) fn check(context: &Context) -> Result<Outcome> {
    let known = files(context)?;
    let pages = known
        .iter()
        .filter(|path| path.extension().is_some_and(|extension| extension == "md"))
        .map(|path| {
            let text = std::fs::read_to_string(context.root.join(path));
            text.map(|text| (path.clone(), Page::of(&text))).with_context(|| path.display().to_string())
        })
        .collect::<Result<BTreeMap<_, _>>>()?;
    let broken: Vec<_> = pages
        .iter()
        .flat_map(|(path, page)| page.links.iter().map(move |link| (path, link)))
        .filter_map(|(path, link)| {
            let problem = problem(path, link, &pages, &known)?;
            Some(format!("{}: [{link}]: {problem}", path.display()))
        })
        .collect();
    ensure!(broken.is_empty(), "links that lead nowhere:\n{}", broken.join("\n"));
    Ok(Outcome::Passed)
}

/// The files that git knows, and those that it would take.
fn files(context: &Context) -> Result<BTreeSet<PathBuf>> {
    let mut git = Command::new("git");
    git.args(["ls-files", "--cached", "--others", "--exclude-standard", "-z"]).current_dir(&context.root);
    let output = git.output().context("cannot start git")?;
    ensure!(output.status.success(), "git ls-files ended with {}", output.status);
    let listed = String::from_utf8(output.stdout).context("a file's name is no text")?;
    Ok(listed.split_terminator('\0').map(PathBuf::from).collect())
}

/// Why a link leads nowhere; nothing where it leads somewhere, or out of the repository.
fn problem(
    from: &Path,
    link: &str,
    pages: &BTreeMap<PathBuf, Page>,
    known: &BTreeSet<PathBuf>,
) -> Option<&'static str> {
    if link.contains("://") || link.starts_with("mailto:") {
        return None;
    }
    let (file, anchor) = link.split_once('#').map_or((link, None), |(file, anchor)| (file, Some(anchor)));
    let to = if file.is_empty() { from.to_owned() } else { resolved(from, file)? };
    let is_there = known.contains(&to) || known.iter().any(|path| path.starts_with(&to));
    match (is_there, anchor) {
        (false, _) => Some("no such file"),
        (true, Some(anchor)) if !pages.get(&to).is_some_and(|page| page.anchors.contains(anchor)) => {
            Some("no such heading")
        }
        (true, _) => None,
    }
}

/// The path that a link from one file to another means.
fn resolved(from: &Path, link: &str) -> Option<PathBuf> {
    let mut path = from.parent()?.to_owned();
    for part in Path::new(link).components() {
        match part {
            Component::ParentDir => {
                path.pop();
            }
            Component::Normal(name) => path.push(name),
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
    Some(path)
}

impl Page {
    fn of(text: &str) -> Self {
        let mut page = Self::default();
        let mut heading: Option<String> = None;
        for event in Parser::new(text) {
            match event {
                Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => {
                    page.links.push(dest_url.into_string());
                }
                Event::Start(Tag::Heading { .. }) => heading = Some(String::new()),
                Event::End(TagEnd::Heading(_)) => {
                    page.anchors.extend(heading.take().map(|text| anchor(&text)));
                }
                Event::Text(text) | Event::Code(text) => {
                    if let Some(heading) = &mut heading {
                        heading.push_str(&text);
                    }
                }
                _ => {}
            }
        }
        page
    }
}

/// A heading's anchor, as GitHub makes it.
fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|letter| letter.is_alphanumeric() || matches!(letter, ' ' | '-' | '_'));
    kept.flat_map(char::to_lowercase).map(|letter| if letter == ' ' { '-' } else { letter }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_followed_to_files_and_headings() {
        let pages: BTreeMap<_, _> = [
            ("README.md", "# Top\n[a](docs/a.md#what-is-it-good-for) ![b](img.png)"),
            ("docs/a.md", "## What is it good for?\n"),
        ]
        .map(|(path, text)| (PathBuf::from(path), Page::of(text)))
        .into();
        let known = ["README.md", "docs/a.md", "img.png"].map(PathBuf::from).into();
        let leads = |from: &str, link: &str| problem(Path::new(from), link, &pages, &known);
        for link in &pages[Path::new("README.md")].links {
            assert_eq!(leads("README.md", link), None, "{link}");
        }
        for fine in ["../README.md#top", "#what-is-it-good-for", "../docs", "https://example.com/#x"] {
            assert_eq!(leads("docs/a.md", fine), None, "{fine}");
        }
        assert_eq!(leads("docs/a.md", "b.md"), Some("no such file"));
        assert_eq!(leads("README.md", "docs/a.md#good"), Some("no such heading"));
    }
}
