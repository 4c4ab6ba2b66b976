package IoTHubTest::Faults;

# Every fault that the simulator knows, as rules that share out a part of the
# calls.

use strict;
use warnings;

use Exporter qw(import);

our @EXPORT_OK = qw(share_out wire_faults word_faults);

# What passes is thrown more often than what ends a delivery.
my ($PASSING, $ENDING, $WIRE) = (2, 0.7, 6);

# Errors as the hub's documents name them, but those that close a gate.

my @PASSING = qw(400021 400024 400029 400030 404012 404000 408000 409000
    409102 499000 500000 500001 500008 502000 503000 503001 503005 503006
    504000 504101);

my @ENDING = qw(400000 400001 400003 400004 400005 400006 400011 400013
    400103 401000 401001 401002 401003 403000 403001 403010 403011 404001
    405000 405102 409001 412001 413001 413002 415000);

# The body of something in front of the hub, or none.

my @BARE = (400, 401, 403, 404, 405, 408, 409, 412, 413, 415, 499, 500, 502,
    503, 504);


# word_faults(): errors that say so, each in both formats of a body, and
# statuses without a word of the hub

sub word_faults {
    my @faults;

    for my $format (1, 2) {
        push @faults, map { { code => $_, format => $format,
            name => "$_ format $format", weight => $PASSING } } @PASSING;
        push @faults, map { { code => $_, format => $format,
            name => "$_ format $format", weight => $ENDING } } @ENDING;
    }

    for my $format (qw(empty html garbage)) {
        push @faults, map { { status => $_, format => $format,
            name => "$_ $format",
            weight => $_ == 408 || $_ > 415 ? $PASSING : $ENDING } } @BARE;
    }

    # what means a device that is not there, though the status is another's
    push @faults, { status => 401, error => 'DeviceNotFound',
        name => '401 not there', weight => $ENDING };

    # none of the hub's
    push @faults, map { { status => $_, name => $_, weight => $ENDING } }
        302, 303, 402, 418, 507;

    push @faults,
        { status => 503, retry_after => 1, name => 'retry after 1' },
        { status => 503, retry_after => 'date+2',
          name => 'retry after a date' },
        { status => 500, retry_after => 'soon', name => 'retry after soon' },
        { status => 503, retry_after => 86400,
          name => 'retry after a day' };

    return @faults;
}


# wire_faults(): answers that are late, in pieces, or do not come, with the
# operation carried out or not

sub wire_faults {
    my @lost = (
        ['close before', close => 'before'],
        ['close in the middle', close => 'middle'],
        ['reset', reset => 1],
    );

    my @faults = (
        ['close at the request', close => 'request'],
        @lost,
        (map { ["accepted, $_->[0]", accept => 1, @$_[1 .. $#$_]] } @lost),

        (map { ["accepted, $_", accept => 1, status => $_] }
            500, 503, 504),
        ['accepted, 502 html', accept => 1, status => 502, format => 'html'],
        ['accepted, 500 empty', accept => 1, status => 500,
         format => 'empty'],

        ['late 100', delay => 100],
        ['late 800', delay => 800],
        ['late 100, 500', delay => 100, status => 500],
        ['too late', delay => 2500],
        ['too late, 503', delay => 2500, status => 503],

        ['100 before', interim => 100],
        ['102 before', interim => 102],
        ['103 before, 500', interim => 103, status => 500],

        ['too large, 500', status => 500, oversize => 200_000],
        ['large, 503', status => 503, oversize => 5000],
        ['large success', oversize => 5000],
        ['large success, cut', accept => 1, oversize => 5000,
         close => 'middle'],

        # a success that does not end is none
        ['no HTTP', raw => "hello\r\n"],
        ['nothing but bytes', raw => "\0\1\2\3" x 50],
        ['half a status line', raw => 'HTTP/1.1 20'],
        ['half a head', raw => "HTTP/1.1 204 No Content\r\nContent-Le"],
        ['half a body', raw => "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n"
            . '{"half":'],
        ['half a chunk', raw => "HTTP/1.1 200 OK\r\n"
            . "Transfer-Encoding: chunked\r\n\r\n20\r\nhalf"],
    );

    return map { my ($name, %fault) = @$_;
                 +{ %fault, name => $name, weight => $WIRE } } @faults;
}


# share_out(SHARE, \%when, @faults): rules of which one applies to so many of
# the calls that fit %when, in parts as their weights are

sub share_out {
    my ($share, $when, @faults) = @_;

    my ($whole, $before) = (0, 0);

    $whole += $_->{weight} // 1 for @faults;

    return map {
        my %rule = (%$when, %$_);
        my $part = $share * (delete $rule{weight} // 1) / $whole;

        # of the calls that the rules before this one let through
        $rule{probability} = sprintf '%.6f', $part / (1 - $before);
        $before += $part;

        \%rule;
    } @faults;
}


1;
