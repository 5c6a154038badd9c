//! The tutorial shows the program that is compiled and run, all of it.

/// Lines that say something: where the page breaks the program, blank lines differ.
fn lines(text: &str) -> Vec<&str> {
    text.lines().filter(|line| !line.is_empty()).collect()
}

#[test]
fn the_tutorials_code_is_the_example() {
    let (page, example) =
        (include_str!("../../../docs/tutorial.md"), include_str!("../examples/notice_board.rs"));
    let blocks: Vec<_> =
        page.split("```rust\n").skip(1).filter_map(|block| block.split("\n```\n").next()).collect();
    let blocks = blocks.join("\n");
    let (shown, run) = (lines(&blocks), lines(example));
    for (shown, run) in shown.iter().zip(&run) {
        assert_eq!(shown, run, "docs/tutorial.md differs from examples/notice_board.rs");
    }
    assert_eq!(shown.len(), run.len(), "docs/tutorial.md does not show all of examples/notice_board.rs");
}
