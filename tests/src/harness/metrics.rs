//! Reads Prometheus' text format, and `OpenMetrics`, as far as tests need them.

/// The samples of one scrape.
#[derive(Debug, Clone)]
pub struct Metrics {
    samples: Vec<Sample>,
}

#[derive(Debug, Clone)]
struct Sample {
    name: String,
    labels: Vec<(String, String)>,
    value: f64,
}

impl Metrics {
    /// Parses a scrape; lines that are no samples are passed over.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        Self { samples: text.lines().filter_map(Sample::parse).collect() }
    }

    /// The sum of all series of a name that have these labels and maybe others; zero where there are none.
    #[must_use]
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.matching(name, labels).map(|sample| sample.value).sum()
    }

    /// How many series of a name have these labels and maybe others.
    #[must_use]
    pub fn series(&self, name: &str, labels: &[(&str, &str)]) -> usize {
        self.matching(name, labels).count()
    }

    /// Every value that a label has, anywhere.
    #[must_use]
    pub fn label_values(&self, label: &str) -> Vec<&str> {
        let labels = self.samples.iter().flat_map(|sample| &sample.labels);
        labels.filter(|(key, _)| key == label).map(|(_, value)| value.as_str()).collect()
    }

    fn matching(&self, name: &str, labels: &[(&str, &str)]) -> impl Iterator<Item = &Sample> {
        self.samples.iter().filter(move |sample| {
            let has = |(key, value): &(&str, &str)| sample.labels.iter().any(|(k, v)| k == key && v == value);
            sample.name == name && labels.iter().all(has)
        })
    }
}

impl Sample {
    fn parse(line: &str) -> Option<Self> {
        if line.starts_with('#') {
            return None;
        }
        let (name, labels, rest) = match line.split_once('{') {
            Some((name, rest)) => {
                let (labels, rest) = labels(rest)?;
                (name, labels, rest)
            }
            None => {
                let (name, rest) = line.split_once(' ')?;
                (name, Vec::new(), rest)
            }
        };
        // A time or an exemplar may follow the value.
        let value = rest.split_whitespace().next()?.parse().ok()?;
        Some(Self { name: name.to_owned(), labels, value })
    }
}

/// The labels up to the closing brace, and what follows it.
fn labels(mut text: &str) -> Option<(Vec<(String, String)>, &str)> {
    let mut labels = Vec::new();
    loop {
        text = text.trim_start_matches([',', ' ']);
        if let Some(rest) = text.strip_prefix('}') {
            return Some((labels, rest));
        }
        let (key, quoted) = text.split_once("=\"")?;
        let (value, rest) = unquoted(quoted)?;
        labels.push((key.to_owned(), value));
        text = rest;
    }
}

/// The value up to its closing quote, without escapes, and what follows.
fn unquoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.chars();
    loop {
        match characters.next()? {
            '"' => return Some((value, characters.as_str())),
            '\\' => value.push(match characters.next()? {
                'n' => '\n',
                other => other,
            }),
            other => value.push(other),
        }
    }
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "whole numbers are exact")]
mod tests {
    use super::*;

    const SCRAPE: &str = "# TYPE tokens counter\n\
        tokens_total{tenant=\"acme\",kind=\"stream\"} 12\n\
        tokens_total{tenant=\"acme\",kind=\"single\"} 30 # {id=\"x\"} 1\n\
        tokens_total{tenant=\"a\\\"b,}c\",kind=\"single\"} 5.5\n\
        up 1\n\
        # EOF\n";

    #[test]
    fn series_are_summed_by_the_labels_given() {
        let metrics = Metrics::parse(SCRAPE);
        assert_eq!(metrics.sum("tokens_total", &[("tenant", "acme")]), 42.0);
        assert_eq!(metrics.sum("tokens_total", &[("kind", "single"), ("tenant", "acme")]), 30.0);
        assert_eq!(metrics.sum("tokens_total", &[("tenant", "a\"b,}c")]), 5.5);
        assert_eq!(metrics.sum("up", &[]), 1.0);
        assert_eq!(metrics.sum("absent", &[]), 0.0);
        assert_eq!(metrics.series("tokens_total", &[]), 3);
    }
}
