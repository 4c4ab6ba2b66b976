#!/usr/bin/perl

# The identity cache: runs build/unit/identity.

use strict;
use warnings;

use FindBin;

my $program = "$FindBin::Bin/../build/unit/identity";

-x $program or die "$program is missing: run t/run\n";

exec $program or die "$program: $!\n";
