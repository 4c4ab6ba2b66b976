#!/usr/bin/perl

# Gates and the token bucket: runs build/unit/gate.

use strict;
use warnings;

use FindBin;

my $program = "$FindBin::Bin/../build/unit/gate";

-x $program or die "$program is missing: run t/run\n";

exec $program or die "$program: $!\n";
