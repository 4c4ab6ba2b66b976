#!/usr/bin/perl

# When a token is used again and when it is signed anew: runs
# build/unit/hub_token.

use strict;
use warnings;

use FindBin;

my $program = "$FindBin::Bin/../build/unit/hub_token";

-x $program or die "$program is missing: run t/run\n";

exec $program or die "$program: $!\n";
