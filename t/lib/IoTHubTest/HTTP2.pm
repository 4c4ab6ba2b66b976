package IoTHubTest::HTTP2;

# A small HTTP/2 client for tests, without TLS: many streams on a connection,
# each as far as a test wants it to go, and broken off wherever it likes.

use strict;
use warnings;

use IO::Select;
use IO::Socket::INET;
use Time::HiRes qw(time);

my ($DATA, $HEADERS, $RST_STREAM, $SETTINGS, $PING, $GOAWAY, $WINDOW_UPDATE)
    = (0, 1, 3, 4, 6, 7, 8);
my ($END_STREAM, $ACK, $END_HEADERS) = (1, 1, 4);
my $CANCEL = 8;

# the statuses that HPACK has a byte for
my %STATUS = (0x88 => 200, 0x89 => 204, 0x8a => 206, 0x8b => 304,
              0x8c => 400, 0x8d => 404, 0x8e => 500);


# connect(PORT): with the preface sent

sub connect {
    my ($class, $port) = @_;

    my $s = IO::Socket::INET->new(PeerAddr => '127.0.0.1',
                                  PeerPort => $port)
        or die "connect: $!\n";

    my $self = bless { s => $s, in => '', next => 1, streams => {} }, $class;

    $self->write("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", frame($SETTINGS, 0, 0));

    return $self;
}


sub socket { return $_[0]{s} }


sub frame {
    my ($type, $flags, $stream, $payload) = @_;

    $payload //= '';

    return substr(pack('N', length $payload), 1)
        . pack('CCN', $type, $flags, $stream) . $payload;
}


sub write {
    my ($self, @bytes) = @_;

    local $SIG{PIPE} = 'IGNORE';

    print { $self->{s} } @bytes;
    $self->{s}->flush;
}


# request(URI, BODY, %options): sends a POST and returns its stream.  headers:
# a hash; body_in: the body comes in frames of so many bytes; part: and then
# more is to come, by data()

sub request {
    my ($self, $uri, $body, %o) = @_;

    my $id = $self->{next};
    my %headers = (':path' => $uri, ':authority' => 'localhost',
                   'content-type' => 'application/x-www-form-urlencoded',
                   %{ $o{headers} // {} });

    $self->{next} += 2;
    $self->{streams}{$id} = { id => $id, start => time, body => '' };

    # POST, http, and the others as literals
    my $head = join '', "\x83\x86",
        map { "\0" . chr(length) . $_ . chr(length $headers{$_})
              . $headers{$_} } sort keys %headers;

    $self->write(frame($HEADERS, $END_HEADERS, $id, $head),
                 _data($id, $body, $o{body_in}, !$o{part}));

    return $id;
}


sub data {
    my ($self, $id, $body, $end) = @_;

    $self->write(_data($id, $body, undef, $end));
}


sub _data {
    my ($id, $body, $size, $end) = @_;

    $size //= length($body) || 1;

    my @parts = $body =~ /(.{1,$size})/gs;

    @parts = '' unless @parts;

    return map { frame($DATA, $end && $_ == $#parts ? $END_STREAM : 0, $id,
                       $parts[$_]) } 0 .. $#parts;
}


sub reset {
    my ($self, $id) = @_;

    $self->write(frame($RST_STREAM, 0, $id, pack 'N', $CANCEL));
}


sub goaway {
    my ($self) = @_;

    $self->write(frame($GOAWAY, 0, 0, pack 'NN', 0, 0));
}


sub close { CORE::close($_[0]{s}) }


# answers(COUNT, TIMEOUT): reads until so many streams have ended, and returns
# those that have, in the order of their ends: id, status, body, reset, time

sub answers {
    my ($self, $count, $timeout) = @_;

    my $end = time + ($timeout // 30);

    while (!$self->{ended} && $self->_done < $count && time < $end) {
        next unless IO::Select->new($self->{s})->can_read(0.2);

        if (!sysread $self->{s}, $self->{in}, 65536, length $self->{in}) {
            $self->{ended} = 1;
        }

        $self->_take while $self->_is_whole;
    }

    return $self->_done;
}


# answer(ID): of one stream, likewise

sub answer {
    my ($self, $id, $timeout) = @_;

    my $stream = $self->{streams}{$id};
    my $end = time + ($timeout // 30);
    my $done = $self->_done;

    while (!$stream->{end} && !$self->{ended} && time < $end) {
        $self->answers(++$done, $end - time);
    }

    return $stream;
}


sub has_ended { return $_[0]{ended} ? 1 : 0 }


sub _done {
    my ($self) = @_;

    my @done = sort { $a->{end} <=> $b->{end} } grep { $_->{end} }
        values %{ $self->{streams} };

    return @done;
}


sub _is_whole {
    my ($self) = @_;

    return 0 if length $self->{in} < 9;

    my ($high, $low) = unpack 'Cn', $self->{in};

    return length $self->{in} >= 9 + ($high << 16) + $low;
}


sub _take {
    my ($self) = @_;

    my ($high, $low, $type, $flags, $id) = unpack 'CnCCN', $self->{in};
    my $length = ($high << 16) + $low;
    my $payload = substr $self->{in}, 9, $length;

    $self->{in} = substr $self->{in}, 9 + $length;

    if ($type == $SETTINGS && !($flags & $ACK)) {
        $self->write(frame($SETTINGS, $ACK, 0));

    } elsif ($type == $PING && !($flags & $ACK)) {
        $self->write(frame($PING, $ACK, 0, $payload));

    } elsif ($type == $GOAWAY) {
        $self->{goaway} = unpack 'x4N', $payload;
    }

    my $stream = $self->{streams}{$id} or return;

    if ($type == $HEADERS) {
        $stream->{status} = _status($payload);

    } elsif ($type == $DATA) {
        $stream->{body} .= $payload;
        $self->write(map { frame($WINDOW_UPDATE, 0, $_, pack 'N', $length) }
                     0, $id) if $length;

    } elsif ($type == $RST_STREAM) {
        $stream->{reset} = unpack 'N', $payload;

    } else {
        return;
    }

    if ($type == $RST_STREAM || $flags & $END_STREAM) {
        $stream->{end} //= time;
        $stream->{time} //= $stream->{end} - $stream->{start};
    }
}


# nginx sends the status first: as an index, or as a literal of three digits

sub _status {
    my ($head) = @_;

    $head =~ s/^[\x20-\x3f]+//;

    return $STATUS{ord $head} // ($head =~ /^[\x08\x48]\x03(\d{3})/ ? $1 : 0);
}


1;
