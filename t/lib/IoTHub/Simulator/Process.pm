# Copyright (C) the ngx_http_iothub_module authors

# A simulator of its own for a test: starts it, talks to it, ends it.

package IoTHub::Simulator::Process;

use v5.36;
use strict;
use warnings;

use Digest::SHA qw(hmac_sha256_base64);
use File::Basename qw(dirname);
use File::Temp ();
use IO::Select ();
use IO::Socket::IP ();
use IO::Socket::SSL ();
use JSON::PP ();
use MIME::Base64 qw(decode_base64);
use POSIX ();
use Time::HiRes qw(sleep time);

use constant {
    PROGRAM => dirname(__FILE__) . '/../../../simulator',
    HOST    => 'contoso.azure-devices.net',
    SECONDS => 20,
};


sub start($class, @arguments) {
    my $dir  = File::Temp->newdir('simulator-XXXXXXXX', TMPDIR => 1);
    my $self = bless {
        dir => $dir,
        tls => (grep { $_ eq '--tls' } @arguments) ? 1 : 0,
        owner => $$,
    }, $class;

    my @command = ($^X, PROGRAM, '--dir', "$dir", '--ready', "$dir/ready",
        '--parent', $$, '--quiet', @arguments);
    my $pid = fork // die "fork: $!\n";
    if ($pid == 0) {
        exec @command or POSIX::_exit(127);
    }
    $self->{pid} = $pid;

    my $until = time + SECONDS;
    until (-s "$dir/ready") {
        die "the simulator ended\n" if waitpid($pid, POSIX::WNOHANG()) > 0;
        die "the simulator does not start\n" if time > $until;
        sleep 0.02;
    }

    my $ready = JSON::PP::decode_json(slurp("$dir/ready"));
    $self->{port} = $ready->{ports}[0];
    $self->{ca}   = $ready->{ca};
    return $self;
}


sub slurp($file) {
    open my $in, '<:raw', $file or die "$file: $!\n";
    local $/;
    return scalar <$in>;
}


# Ends it and returns its exit status, -1 if it had to be killed.

sub stop($self, $signal = 'TERM') {
    my $pid = delete $self->{pid} // return undef;

    kill $signal, $pid;
    return $self->wait_end($pid);
}


sub wait_end($self, $pid) {
    my $until = time + SECONDS;
    while (time < $until) {
        return $? if waitpid($pid, POSIX::WNOHANG()) == $pid;
        sleep 0.02;
    }
    kill 'KILL', $pid;
    waitpid $pid, 0;
    return -1;
}


sub DESTROY($self) {
    local ($?, $!, $@);
    $self->stop if $self->{owner} == $$;
    return;
}


# A connection, or undef.  plain: without TLS in any case.

sub connect($self, %arg) {
    my $socket = IO::Socket::IP->new(
        PeerHost => '127.0.0.1',
        PeerPort => $self->{port},
    ) or return undef;
    return $socket if !$self->{tls} || $arg{plain};

    return IO::Socket::SSL->start_SSL($socket,
        SSL_hostname        => HOST,
        SSL_verifycn_name   => HOST,
        SSL_verifycn_scheme => 'http',
        SSL_ca_file         => $arg{ca} // $self->{ca},
    );
}


# The bytes of a request.  Without Content-Length in the headers or
# Transfer-Encoding, the body's is added to POST and PUT.

sub format_request($method, $uri, $headers = [], $body = undef) {
    my @lines = @$headers;
    unshift @lines, 'Host: ' . HOST
        unless grep { /^host:/i } @lines;
    push @lines, 'Content-Length: ' . length($body // '')
        if (defined $body || $method =~ /^(?:POST|PUT)\z/)
        && !grep { /^(?:content-length|transfer-encoding):/i } @lines;
    return join "\r\n", "$method $uri HTTP/1.1", @lines, '', $body // '';
}


# Reads one answer: { status, headers, body, interim, whole }.  status is 0
# where the connection ends before one; whole says that it was all there.

sub read_answer($socket, $buffer = undef, $method = 'GET') {
    $buffer  //= \(my $own);
    $$buffer //= '';
    my $answer = { status => 0, headers => {}, body => '', interim => [],
        whole => 0 };

    my $until = time + SECONDS;
    while (1) {
        while ($$buffer =~ s{^HTTP/1\.1 (\d{3})[^\r]*\r\n(.*?)\r\n\r\n}{}s
            || $$buffer =~ s{^HTTP/1\.1 (\d{3})[^\r]*()\r\n\r\n}{}s)
        {
            my ($status, $fields) = ($1, $2);
            if ($status < 200) {
                push @{ $answer->{interim} }, $status;
                next;
            }
            $answer->{status}  = $status;
            $answer->{headers} = { map { my ($name, $value) =
                split /:\s*/, $_, 2; (lc $name => $value) }
                split /\r\n/, $fields };
            last;
        }

        if ($answer->{status}) {
            my $length = $answer->{headers}{'content-length'} // 0;
            $length = 0 if $method eq 'HEAD';
            if (length $$buffer >= $length) {
                $answer->{body}  = substr $$buffer, 0, $length, '';
                $answer->{whole} = 1;
                return $answer;
            }
        }

        my $got = read_some($socket, $buffer, $until);
        if (!$got) {
            $answer->{reset} = $!{ECONNRESET} ? 1 : 0 unless defined $got;
            $answer->{body}  = $$buffer;
            return $answer;
        }
    }
}


# Returns undef on an error or after the time, as $! says, 0 at the end.

sub read_some($socket, $buffer, $until) {
    unless (ref $socket eq 'IO::Socket::SSL' && $socket->pending) {
        my $left = $until - time;
        my $ready = $left > 0 && IO::Select->new($socket)->can_read($left);
        if (!$ready) {
            $! = POSIX::ETIMEDOUT();
            return undef;
        }
    }
    return $socket->sysread($$buffer, 65536, length $$buffer);
}


# One request on a connection of its own.

sub request($self, $method, $uri, $headers = [], $body = undef) {
    my $socket = $self->connect or die "no connection\n";
    $socket->syswrite(format_request($method, $uri, $headers, $body));
    return read_answer($socket, \my $buffer, $method);
}


# A control call; $data is encoded if it is a reference, the answer decoded.

sub control($self, $method, $call, $data = undef) {
    my $socket = $self->connect(plain => 1) or die "no connection\n";
    my $body   = ref $data ? JSON::PP::encode_json($data) : $data;
    $socket->syswrite(format_request($method, "/simulator/$call",
        ['Connection: close'], $body));

    my $answer = read_answer($socket);
    $answer->{data} = eval { JSON::PP::decode_json($answer->{body}) };
    return $answer;
}


sub journal($self, $query = '') {
    return @{ $self->control('GET', "journal$query")->{data} };
}


# A token: sr (as it is to be in the token), key (base64), skn, and se or ttl
# in seconds.

sub token(%arg) {
    my $sr  = $arg{sr} // HOST;
    my $se  = $arg{se} // int(time) + ($arg{ttl} // 3600);
    my $sig = hmac_sha256_base64("$sr\n$se", decode_base64($arg{key}));
    $sig .= '=' x (-length($sig) % 4);
    $sig =~ s/([+\/=])/sprintf '%%%02X', ord $1/ge;

    return "SharedAccessSignature sr=$sr&sig=$sig&se=$se"
        . (defined $arg{skn} ? "&skn=$arg{skn}" : '');
}

1;
