#!/usr/bin/perl

# The identity cache, its leases, the gates and the token bucket under eight
# threads and ThreadSanitizer: runs build/unit/identity_stress.

use strict;
use warnings;

use FindBin;

my $program = "$FindBin::Bin/../build/unit/identity_stress";

-x $program or die "$program is missing: run t/run\n";

exec $program or die "$program: $!\n";
