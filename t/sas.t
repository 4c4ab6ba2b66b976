#!/usr/bin/perl

# Keys, connection strings and tokens: runs build/unit/sas, which reads the
# vectors made with Azure's Node SDK from its standard input.

use strict;
use warnings;

use FindBin;
use JSON::PP;

my $program = "$FindBin::Bin/../build/unit/sas";

-x $program or die "$program is missing: run t/run\n";

open my $json, '<', "$FindBin::Bin/vectors/sas.json" or die "sas.json: $!\n";
my $vectors = decode_json(do { local $/; <$json> })->{vectors};

open my $unit, '|-', $program or die "$program: $!\n";

for my $v (@$vectors) {
    print $unit join("\t", @$v{qw(name resourceUri sr)}, $v->{keyName} // '-',
        @$v{qw(keyBase64 expiry token)}), "\n";
}

close $unit;

exit($? >> 8 || ($? ? 255 : 0));
