package IoTHubTest::HTTP;

# A small HTTP/1 client for tests: it sends exactly what it is told, tells
# exactly what came back, and can have many requests under way at once.

use strict;
use warnings;

use Carp qw(croak);
use Errno qw(EAGAIN EINPROGRESS EINTR);
use Exporter qw(import);
use IO::Select;
use IO::Socket::INET;
use Socket qw(SOL_SOCKET SO_ERROR);
use Time::HiRes qw(sleep time);

our @EXPORT_OK = qw(compose converse parallel parse);

my $CONNECTION_TRIES = 5;


# compose(METHOD, URI, %options): the bytes of a request

sub compose {
    my ($method, $uri, %o) = @_;

    my @headers = ref($o{headers}) eq 'HASH'
        ? map { [$_, $o{headers}{$_}] } sort keys %{ $o{headers} }
        : _pairs($o{headers} // []);

    my %has = map { lc($_->[0]) => 1 } @headers;
    my $body = $o{body};

    unshift @headers, [Host => $o{host} // 'localhost'] unless $has{host};

    push @headers, [Connection => $o{keepalive} ? 'keep-alive' : 'close']
        unless $has{connection};

    if (ref $body) {
        push @headers, ['Transfer-Encoding' => 'chunked']
            unless $has{'transfer-encoding'};

        $body = join '', map { sprintf("%x\r\n%s\r\n", length, $_) }
            (grep { length } @$body), '';

    } elsif (defined $body && !$has{'content-length'}
             && !$has{'transfer-encoding'})
    {
        push @headers, ['Content-Length' => length $body];
    }

    return join("\r\n", "$method $uri HTTP/" . ($o{version} // '1.1'),
        (map { "$_->[0]: $_->[1]" } @headers), '', $body // '');
}


sub _pairs {
    my @flat = @{ $_[0] };
    my @pairs;

    push @pairs, [splice @flat, 0, 2] while @flat;

    return @pairs;
}


# parse(BYTES, METHOD, EOF): the answer at the start of BYTES, or nothing if
# it is not complete yet

sub parse {
    my ($raw, $method, $eof) = @_;
    my ($head, $body, $status, $version, %headers);

    for (;;) {
        my $end = index $raw, "\r\n\r\n";
        return if $end < 0;

        $head = substr $raw, 0, $end;
        $body = substr $raw, $end + 4;

        ($version, $status) = $head =~ m{^HTTP/(\S+) (\d{3})} or return;

        last if $status >= 200;

        $raw = $body;
    }

    for my $line (split /\r\n/, $head) {
        my ($name, $value) = $line =~ /^([^:\s]+):\s*(.*?)\s*$/ or next;
        $name = lc $name;

        $headers{$name} = defined $headers{$name}
            ? "$headers{$name}, $value" : $value;
    }

    my $complete = 0;

    if ($method eq 'HEAD' || $status == 204 || $status == 304) {
        ($body, $complete) = ('', 1);

    } elsif (lc($headers{'transfer-encoding'} // '') eq 'chunked') {
        ($body, $complete) = _dechunk($body);

    } elsif (defined $headers{'content-length'}) {
        my $length = $headers{'content-length'};

        $complete = length($body) >= $length;
        $body = substr $body, 0, $length;

    } else {
        $complete = $eof;
    }

    return unless $complete || $eof;

    return {
        status => $status, version => $version, headers => \%headers,
        body => $body, complete => $complete ? 1 : 0, head => $head,
    };
}


sub _dechunk {
    my ($data) = @_;
    my ($body, $pos) = ('', 0);

    for (;;) {
        pos($data) = $pos;

        $data =~ /\G([0-9a-fA-F]+)[^\r\n]*\r\n/gc or return ($body, 0);

        my $size = hex $1;

        if ($size == 0) {
            return ($body, $data =~ /\G(?:[^\r\n]+\r\n)*\r\n/gc);
        }

        return ($body, 0) if length($data) < pos($data) + $size + 2;

        $body .= substr $data, pos($data), $size;
        $pos = pos($data) + $size + 2;
    }
}


# converse(RAW, %options): sends RAW on one connection, returns the answer.
# Without a complete answer the status is that of the part that came, or 0.

sub converse {
    my ($raw, %o) = @_;

    my @parts = ref $raw ? @$raw : $raw;
    my ($method) = $parts[0] =~ /^(\S+)/;
    my $start = time;
    my $deadline = $start + ($o{timeout} // 30);
    my $in = '';

    my $s = $o{socket} // _connect(%o) or return _nothing($in, $start);

    local $SIG{PIPE} = 'IGNORE';

    while (@parts) {
        $s->print(shift @parts) or last;
        $s->flush;

        sleep($o{pause} // 0.05) if @parts;
    }

    shutdown $s, 1 if $o{half_close};

    if ($o{abort}) {
        close $s;
        return _nothing($in, $start);
    }

    my $select = IO::Select->new($s);

    for (;;) {
        my $answer = parse($in, $method // '', 0);
        return _answer($answer, $in, $start) if $answer;

        my $left = $deadline - time;
        last if $left <= 0;

        next unless $s->can('pending') && $s->pending
            || $select->can_read($left);

        my $n = sysread $s, $in, 65536, length $in;

        next if !defined $n && ($!{EINTR} || $!{EAGAIN});
        last unless $n;
    }

    my $answer = parse($in, $method // '', 1);

    return $answer ? _answer($answer, $in, $start) : _nothing($in, $start);
}


sub _connect {
    my (%o) = @_;

    my $s = IO::Socket::INET->new(
        PeerAddr => $o{address} // '127.0.0.1', PeerPort => $o{port},
        Proto => 'tcp', Timeout => $o{timeout} // 30);

    return $s unless $s && $o{ssl};

    require IO::Socket::SSL;

    return IO::Socket::SSL->start_SSL($s, SSL_startHandshake => 1,
        ref $o{ssl} ? %{ $o{ssl} } : (SSL_verify_mode => 0));
}


sub _answer {
    my ($answer, $raw, $start) = @_;

    return { %$answer, raw => $raw, time => time - $start, at => time };
}


sub _nothing {
    my ($raw, $start) = @_;

    return {
        status => 0, version => '', headers => {}, body => '', head => '',
        complete => 0, raw => $raw, time => time - $start, at => time,
    };
}


# parallel(REQUESTS, CONCURRENCY, %options): the answers, in the order of the
# requests, each of which is raw bytes

sub parallel {
    my ($requests, $concurrency, %o) = @_;

    my @todo = map { { index => $_, tries => 0 } } 0 .. $#$requests;
    my (@answers, @idle, @later, @resting, %busy);
    my $done = 0;

    local $SIG{PIPE} = 'IGNORE';

    my ($readers, $writers) = (IO::Select->new, IO::Select->new);

    my $end = sub {
        my ($slot, $answer, $in) = @_;

        $readers->remove($slot->{s});
        $writers->remove($slot->{s});
        delete $busy{ fileno $slot->{s} };

        my $keep = $o{keepalive} && $answer && $answer->{complete}
            && ($answer->{headers}{connection} // '') ne 'close';

        push @idle, $slot->{s} if $keep;

        my $job = $slot->{job};

        if (!$answer && $in eq '' && !$slot->{late}
            && $job->{tries} < $CONNECTION_TRIES)
        {
            push @{ $job->{cuts} }, { time => time, kept => $slot->{kept} };
            unshift @todo, $job;
            return;
        }

        my $start = $job->{start};
        $answer = $answer ? _answer($answer, $in, $start)
                          : _nothing($in, $start);

        $answer->{tries} = $job->{tries};
        $answer->{cuts} = $job->{cuts} // [];
        $answer->{before} = $job->{before} // [];

        my $rest = $o{rest} && $o{rest}->($job->{index}, $answer);
        my $again = $o{again} && $o{again}->($job->{index}, $answer);

        push @resting, time + $rest if $rest;

        if (defined $again && $again ne '') {
            push @later, {
                index => $job->{index}, tries => 0, due => time + $again,
                before => [@{ $answer->{before} }, $answer],
            };
            return;
        }

        $answers[$job->{index}] = $answer;
        $done++;

        $o{on_answer}->($job->{index}, $answer, $done) if $o{on_answer};
    };

    while ($done < @$requests) {

        my $now = time;

        @resting = grep { $_ > $now } @resting;
        unshift @todo, grep { $_->{due} <= $now } @later;
        @later = grep { $_->{due} > $now } @later;

        while (@todo && keys(%busy) + @resting < $concurrency) {
            my $job = shift @todo;

            # only a first try may take a connection that may be gone
            my $kept;

            while (!$job->{tries} && ($kept = pop @idle)) {
                last unless IO::Select->new($kept)->can_read(0);
            }

            my $s = $kept // IO::Socket::INET->new(
                PeerAddr => $o{address} // '127.0.0.1',
                PeerPort => $o{port}, Proto => 'tcp', Blocking => 0)
                or croak "connect: $!";

            $job->{start} //= time;
            $job->{tries}++;

            my $raw = $requests->[$job->{index}];

            $busy{ fileno $s } = {
                s => $s, job => $job, in => '', out => $raw,
                kept => defined $kept ? 1 : 0,
                method => $raw =~ /^(\S+)/ ? $1 : '',
                deadline => time + ($o{timeout} // 30),
            };

            $readers->add($s);
            $writers->add($s);
        }

        my ($r, $w) = IO::Select->select($readers, $writers, undef, 0.2);

        for my $s (@{ $w || [] }) {
            my $slot = $busy{ fileno $s } or next;
            my $n = syswrite $s, $slot->{out};

            # what broke the connection is seen when it is read
            $n = length $slot->{out}
                if !defined $n && !$!{EAGAIN} && !$!{EINTR}
                   && !$!{EINPROGRESS};

            substr($slot->{out}, 0, $n // 0) = '';

            $writers->remove($s) if $slot->{out} eq '';
        }

        for my $s (@{ $r || [] }) {
            my $slot = $busy{ fileno $s } or next;
            my $n = sysread $s, $slot->{in}, 65536, length $slot->{in};

            next if !defined $n && ($!{EAGAIN} || $!{EINTR});

            my $answer = parse($slot->{in}, $slot->{method}, !$n);

            $end->($slot, $answer, $slot->{in}) if $answer || !$n;
        }

        for my $slot (values %busy) {
            next if time < $slot->{deadline};

            $slot->{late} = 1;
            $end->($slot, undef, $slot->{in});
        }
    }

    return \@answers;
}


1;
