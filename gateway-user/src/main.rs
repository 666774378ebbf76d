//! The `aoai-gateway` command.
fn main() {}
