//! placeholder until merge
use super::usage::Usage;
/// placeholder
#[derive(Debug)]
pub struct UsageScanner {
    all: Vec<u8>,
    response: bool,
}
impl UsageScanner {
    /// x
    pub fn new() -> Self {
        Self { all: Vec::new(), response: false }
    }
    /// x
    pub fn in_response() -> Self {
        Self { all: Vec::new(), response: true }
    }
    /// x
    pub fn push(&mut self, b: &[u8]) {
        self.all.extend_from_slice(b);
    }
    /// x
    pub fn usage(&self) -> Option<Usage> {
        let v: serde_json::Value = serde_json::from_slice(&self.all).ok()?;
        let v = if self.response { &v["response"] } else { &v };
        Usage::parse(v["usage"].to_string().as_bytes())
    }
}
