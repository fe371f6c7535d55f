use super::*;

fn codes(text: &str) -> Vec<(Level, String)> {
    let (_, report) = Farm::parse(text);
    let code = |f: &Finding| (f.level, format!("{} {}", f.code, f.key));
    report.findings().iter().map(code).collect()
}

#[test]
fn smoke() {
    let (farm, report) = Farm::parse(include_str!("../../examples/farm.toml"));
    println!("{report}");
    println!("{farm:#?}");
    println!("{:?}", codes(""));
}
