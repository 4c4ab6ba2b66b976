#!/usr/bin/perl

# JSON that is so plain that jansson is not asked: runs build/unit/plain.

use strict;
use warnings;

use FindBin;

my $program = "$FindBin::Bin/../build/unit/plain";

-x $program or die "$program is missing: run t/run\n";

exec $program or die "$program: $!\n";
