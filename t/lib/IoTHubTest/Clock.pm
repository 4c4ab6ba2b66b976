package IoTHubTest::Clock;

# A clock that a test moves, of the nginx that it starts: by libfaketime, to
# let ten minutes pass at once, or to set a machine's clock wrong.

use strict;
use warnings;

# what nginx must keep of its environment, where libfaketime looks each time
my @KEPT = qw(FAKETIME_TIMESTAMP_FILE FAKETIME_NO_CACHE
              FAKETIME_DONT_FAKE_MONOTONIC);


# new(TEST, wall => 1): nothing where it cannot work: in a build with
# sanitizers, under valgrind, or without the library.  With wall, timers and
# gates go on in real time, and only the time of day is moved.

sub new {
    my ($class, $t, %o) = @_;

    my ($library) = glob '/usr/lib/*/faketime/libfaketime.so.1';

    return if $t->is_static || $ENV{IOTHUB_TEST_VALGRIND}
        || !defined $library;

    my $self = bless {
        t => $t, library => $library, wall => $o{wall} ? 1 : 0, ahead => 0,
    }, $class;

    $self->advance(0);

    return $self;
}


# options(): for nginx()

sub options {
    my ($self) = @_;

    return (
        main => join(' ', map { "env $_;" } @KEPT),
        env => {
            LD_PRELOAD => $self->{library},
            FAKETIME_TIMESTAMP_FILE => $self->_file,
            FAKETIME_NO_CACHE => 1,
            FAKETIME_DONT_FAKE_MONOTONIC => $self->{wall},
        },
    );
}


sub _file { $_[0]{t}->dir . '/clock' }


# advance(SECONDS): returns how far the clock is ahead now

sub advance {
    my ($self, $seconds) = @_;

    $self->{ahead} += $seconds;

    # without the file, the clock would go right for a moment
    my $new = $self->{t}->write_file('clock.new',
                                     sprintf "%+d\n", $self->{ahead});

    rename $new, $self->_file or die "$new: $!\n";

    return $self->{ahead};
}


sub ahead { $_[0]{ahead} }


1;
