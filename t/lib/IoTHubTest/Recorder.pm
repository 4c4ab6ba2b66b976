package IoTHubTest::Recorder;

# A webhook target that exists already, as a test sees it: a small HTTP server
# that keeps the bytes of each request before it answers.

use strict;
use warnings;

use IO::Socket::INET;
use JSON::PP ();
use Time::HiRes qw(sleep time);

my $json = JSON::PP->new->canonical;


# start(TEST, NAME): listens at TEST's port NAME

sub start {
    my ($class, $t, $name) = @_;

    my $self = bless {
        t => $t, dir => $t->dir . "/recorder-$name", port => $t->port($name),
    }, $class;

    mkdir $self->{dir} or die "$self->{dir}: $!\n";
    $self->answer;

    $self->{pid} = $t->_spawn($t->dir . "/recorder-$name.log", $^X, __FILE__,
                              $self->{port}, $self->{dir});

    $t->_until(20, sub { -e "$self->{dir}/ready" })
        or die "the recorder is not ready after 20 seconds\n";

    return $self;
}


sub port { $_[0]{port} }


# answer(%how): of all requests from now on: delay (seconds), status (200),
# headers (text, each with a line end before it), body; or instead of these,
# raw, or a list of parts, with a pause (seconds) between them

sub answer {
    my ($self, %how) = @_;

    _write("$self->{dir}/answer", $json->encode(\%how));
}


# requests(): hashes in the order of arrival: raw, head, line, headers (names
# in lower case, repeated ones joined), body (as it came), time

sub requests {
    my ($self) = @_;

    return map { _parse($_, _read($_)) } sort glob "$self->{dir}/request-*";
}


sub forget {
    my ($self) = @_;

    unlink glob "$self->{dir}/request-*";
}


# take(COUNT): the requests, once there are so many, and forgets them

sub take {
    my ($self, $count) = @_;

    $self->{t}->_until(15, sub {
        (my @files = glob "$self->{dir}/request-*") >= ($count // 1);
    });

    my @requests = $self->requests;

    $self->forget;

    return wantarray ? @requests : $requests[0];
}


sub stop {
    my ($self) = @_;

    my $pid = delete $self->{pid} // return;

    kill TERM => $pid;
    waitpid $pid, 0;
}


sub DESTROY {
    my ($self) = @_;

    local ($@, $?, $!);

    $self->stop;
}


sub _parse {
    my ($file, $raw) = @_;

    my ($time) = $file =~ /request-([\d.]+)/;
    my ($head, $body) = split /\r\n\r\n/, $raw, 2;
    my ($line, @lines) = split /\r\n/, $head;
    my %headers;

    for (@lines) {
        my ($name, $value) = /^([^:]+):\s*(.*)$/ or next;

        $name = lc $name;
        $headers{$name} = join ', ', grep { defined } $headers{$name}, $value;
    }

    return { raw => $raw, head => $head, line => $line, body => $body // '',
             headers => \%headers, time => $time };
}


# ---- the server, a process for each connection

sub _serve {
    my ($port, $dir) = @_;

    local $SIG{CHLD} = 'IGNORE';
    local $SIG{PIPE} = 'IGNORE';

    my $listen = IO::Socket::INET->new(Listen => 128, ReuseAddr => 1,
        LocalAddr => "127.0.0.1:$port") or die "port $port: $!\n";

    my $parent = getppid;

    _write("$dir/ready", '');

    while (getppid == $parent) {
        my $s = $listen->accept or next;
        my $pid = fork // die "fork: $!\n";

        next if $pid;

        close $listen;
        _converse($s, $dir);
        exit 0;
    }
}


sub _converse {
    my ($s, $dir) = @_;

    my $raw = '';
    my $whole = 0;

    while (!$whole) {
        sysread $s, $raw, 65536, length $raw or last;
        $whole = _is_whole($raw);
    }

    my $file = sprintf 'request-%.6f-%d', time, $$;

    $file =~ s/^request/cut/ unless $whole;
    _write("$dir/$file", $raw);

    return unless $whole;

    my $how = $json->decode(_read("$dir/answer"));
    my $body = $how->{body} // "target\n";
    my $status = $how->{status} // 200;

    sleep $how->{delay} if $how->{delay};

    my @parts = @{ $how->{parts} // [
        $how->{raw} // join "\r\n", "HTTP/1.1 $status Recorded",
            'Content-Length: ' . length $body, 'Connection: close',
            'X-Target: recorder' . ($how->{headers} // ''), '', $body
    ] };

    $s->autoflush;

    while (@parts) {
        print $s shift @parts;
        sleep $how->{pause} if @parts && $how->{pause};
    }

    close $s;
}


sub _is_whole {
    my ($raw) = @_;

    my ($head, $body) = $raw =~ /\A(.*?\r\n)\r\n(.*)\z/s or return 0;

    return $body =~ /(?:\A|\r\n)0\r\n\r\n\z/
        if $head =~ /^Transfer-Encoding: *chunked/mi;

    my ($length) = $head =~ /^Content-Length: *(\d+)/mi;

    return length $body >= ($length // 0);
}


# a file is there only when it is whole

sub _write {
    my ($path, $content) = @_;

    my $part = $path =~ s{([^/]+)\z}{part-$1}r;

    open my $f, '>:raw', $part or die "$part: $!\n";
    print $f $content;
    close $f or die "$part: $!\n";
    rename $part, $path or die "$path: $!\n";
}


sub _read {
    my ($path) = @_;

    open my $f, '<:raw', $path or die "$path: $!\n";
    local $/;

    return scalar(<$f>) // '';
}


_serve(@ARGV) unless caller;

1;

__END__

=head1 NAME

IoTHubTest::Recorder - a webhook target that keeps what it gets

=head1 SYNOPSIS

    my $old = IoTHubTest::Recorder->start($t, 'old');

    $t->nginx('... proxy_pass http://127.0.0.1:%%PORT_old%%; ...');

    $old->answer(status => 503, delay => 2);
    ...
    my $request = $old->take;
    is($request->{body}, $body);

=cut
