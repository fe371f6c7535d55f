//! Measures the search for the rule of a program in process lists of 10, 100 and 1000 rules. A hook
//! layer searches once, at the start of a program.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use vipool::policy::{Executable, PathStyle, Policy, PolicyView, Program};

/// Returns a compiled policy with this number of rules.
fn compiled_policy(rule_count: usize) -> Vec<u8> {
    let program_with_number = |number: usize| {
        Program::new(match number % 2 {
            0 => format!("/opt/vendor/application-{number}/bin/server-{number}"),
            _ => format!(r"C:\Program Files\Vendor\Application {number}\Server{number}.exe"),
        })
    };
    Policy::new((0..rule_count).map(program_with_number)).encode()
}

fn bench_rule_search(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("process list");
    for rule_count in [10, 100, 1000] {
        let policy_bytes = compiled_policy(rule_count);
        // The worst cases: the matching rule is at the end of the list, or no rule matches.
        let posix_path = format!("/opt/vendor/application-{0}/bin/server-{0}", rule_count - 2);
        let windows_path =
            format!(r"\\?\c:\program files\vendor\application {0}\SERVER{0}.EXE", rule_count - 1);
        let programs = [
            ("posix", &*posix_path, PathStyle::Posix, true),
            ("windows", &*windows_path, PathStyle::Windows, true),
            ("not listed", "/usr/bin/python3.13", PathStyle::Posix, false),
        ];
        for (name, path, style, is_listed) in programs {
            let program = Executable::new(path.as_bytes(), style);
            assert_eq!(PolicyView::new(&policy_bytes).find(&program).is_some(), is_listed);
            group.bench_function(BenchmarkId::new(name, rule_count), |bencher| {
                bencher
                    .iter(|| PolicyView::new(black_box(&policy_bytes)).find(black_box(&program)));
            });
        }
    }
    group.finish();
}

criterion_group!(benches, bench_rule_search);
criterion_main!(benches);
