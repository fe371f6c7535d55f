//! Measures how long it takes to match ranges to interfaces, with 1, 16 and 1000 interfaces.
//!
//! The time does not depend on the size of the range: an IPv6 /64 takes as long as one address.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use vipool::interface::{Interface, assign, interface_of};
use vipool::range::Range;

fn create_interfaces(count: u32) -> Vec<Interface> {
    let interface_with_number = |number: u32| Interface {
        index: number + 1,
        name: format!("eth{number}"),
        addresses: vec![
            format!("10.{}.{}.1/24", number / 256, number % 256).parse().expect("a prefix"),
            format!("2001:db8:0:{number:x}::1/64").parse().expect("a prefix"),
        ],
    };
    (0..count).map(interface_with_number).collect()
}

fn bench_range_matching(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("interface match");
    for interface_count in [1, 16, 1000] {
        let interfaces = create_interfaces(interface_count);
        let last_number = interface_count - 1;
        let v4_range: Range =
            format!("10.{0}.{1}.10-10.{0}.{1}.99", last_number / 256, last_number % 256)
                .parse()
                .expect("a range");
        let v6_range: Range = format!("2001:db8:0:{last_number:x}::/64").parse().expect("a range");
        for (name, range) in [("ipv4", v4_range), ("ipv6 /64", v6_range)] {
            assert_eq!(
                interface_of(&range, &interfaces).expect("a match").0.index,
                interface_count
            );
            group.bench_function(BenchmarkId::new(name, interface_count), |bencher| {
                bencher.iter(|| interface_of(black_box(&range), black_box(&interfaces)).is_ok());
            });
        }
        group.bench_function(BenchmarkId::new("usable addresses", interface_count), |bencher| {
            bencher.iter(|| assign(black_box(&[v4_range, v6_range]), &[], black_box(&interfaces)));
        });
    }
    group.finish();
}

criterion_group!(benches, bench_range_matching);
criterion_main!(benches);
