package IoTHubTest::Hub;

# One running hub simulator, as a test sees it.

use strict;
use warnings;

use Carp qw(croak);
use FindBin;
use JSON::PP ();
use MIME::Base64 qw(encode_base64);
use POSIX qw(WNOHANG);
use Time::HiRes qw(sleep time);

use IoTHubTest::HTTP qw(compose converse);

my $json = JSON::PP->new->utf8->canonical->allow_nonref;


sub _start {
    my ($class, $t, %o) = @_;

    my $name = $o{name} // 'contoso';
    my $dir = $t->dir . "/hub-$name";

    my $self = bless {
        name => $name, dir => $dir, tls => $o{tls} // 1,
        hostname => $o{hostname} // "$name.azure-devices.net",
        policy => $o{policy} // 'gateway',
        keys => $o{keys} // [map { _random_key() } 1, 2],
    }, $class;

    mkdir $dir or croak "$dir: $!";

    my $rights = $o{rights} // '';
    my @policies = (
        join(':', $self->{policy}, @{ $self->{keys} }[0, 1], $rights),
        @{ $o{policies} // [] });

    s/:+\z// for @policies;

    $self->{key_file} = $t->write_file("$name.key",
        join('', map { "$_\n" } @{ $self->{keys} }));

    my $program = $ENV{IOTHUB_TEST_SIMULATOR} // "$t->{root}/t/simulator";

    -r $program or croak "no simulator: $program";

    $self->{command} = [$^X, $program, ($self->{tls} ? '--tls' : ()),
        '--dir', $dir, '--hostname', $self->{hostname},
        (map { ('--policy', $_) } @policies),
        '--journal', "$dir/journal", '--ready', "$dir/ready",
        '--quiet', '--parent', $$, @{ $o{args} // [] }];

    $self->{port} = $o{port} // 0;
    $self->start($t);

    $self->settings($o{settings}) if $o{settings};
    $self->faults($o{faults}) if $o{faults};

    return $self;
}


# start(TEST): again, too, after stop(), on the same port

sub start {
    my ($self, $t) = @_;

    my $dir = $self->{dir};

    unlink "$dir/ready";

    # before any other --listen: the first port is the hub's
    my @command = @{ $self->{command} };
    splice @command, 2, 0, '--listen', "127.0.0.1:$self->{port}";

    $self->{pid} = $t->_spawn("$dir/output.log", @command);

    my $ready = $t->_until(20, sub {
        waitpid($self->{pid}, WNOHANG) == 0
            or croak "the simulator did not start: "
                     . $t->_slurp("$dir/output.log");

        eval { $json->decode($t->_slurp("$dir/ready")) };
    }) or croak "the simulator is not ready after 20 seconds";

    $self->{port} = $ready->{ports}[0];
    $self->{ca} = $ready->{ca};
}


sub _random_key {
    open my $random, '<:raw', '/dev/urandom' or die "/dev/urandom: $!\n";
    read $random, my $bytes, 32;

    return encode_base64($bytes, '');
}


sub name { $_[0]{name} }
sub port { $_[0]{port} }
sub ca { $_[0]{ca} }
sub hostname { $_[0]{hostname} }
sub policy { $_[0]{policy} }
sub keys { @{ $_[0]{keys} } }
sub key_file { $_[0]{key_file} }
sub dir { $_[0]{dir} }
sub output { IoTHubTest->_slurp("$_[0]{dir}/output.log") }


sub block {
    my ($self, $more) = @_;

    my @lines = (
        "hostname $self->{hostname}", "address 127.0.0.1:$self->{port}",
        "policy $self->{policy}", "key_file $self->{key_file}",
        $self->{tls} ? "proxy_ssl_trusted_certificate $self->{ca}"
                     : 'tls off',
    );

    my $own = join ' ', map { "$_;" } @lines;

    return "iothub $self->{name} { "
        . join(' ', $own, grep { defined } $more) . ' }';
}


sub exchange {
    my ($self, $method, $path, %o) = @_;

    $o{ssl} = {
        SSL_ca_file => $self->{ca}, SSL_hostname => $self->{hostname},
        SSL_verifycn_name => $self->{hostname},
        SSL_verifycn_scheme => 'http',
    } if $self->{tls};

    return converse(compose($method, $path, host => $self->{hostname}, %o),
                    port => $self->{port}, %o);
}


sub control {
    my ($self, $method, $path, $data, %o) = @_;

    my $answer = $self->exchange($method, "/simulator/$path", %o,
        defined $data
            ? (body => $json->encode($data),
               headers => ['Content-Type' => 'application/json'])
            : ());

    $answer->{status} =~ /^2/
        or croak "simulator: $method $path: $answer->{status} $answer->{body}";

    return $answer->{body} eq '' ? undef : $json->decode($answer->{body});
}


# _list(PATH, FILTER): the list at PATH, of it what has the given members.
# What the simulator can choose itself need not be decoded.

my %by_simulator = map { $_ => 1 } qw(after op device status accepted brief);

sub _list {
    my ($self, $path, %want) = @_;

    my $query = join '&', map { "$_=" . _escape(delete $want{$_}) }
        grep { $by_simulator{$_} && !ref $want{$_} } sort { $a cmp $b }
        CORE::keys %want;

    my $list = $self->control(GET => $query eq '' ? $path : "$path?$query");

    return grep {
        my $item = $_;

        !grep {
            my ($has, $wanted) = ($item->{$_} // '', $want{$_});
            ref $wanted eq 'Regexp' ? $has !~ $wanted : $has ne $wanted;
        } CORE::keys %want;
    } @$list;
}


sub journal { my $self = shift; return $self->_list('journal', @_) }
sub messages { my $self = shift; return $self->_list('messages', @_) }

sub connections { $_[0]->control(GET => 'connections') }
sub devices { return my @all = @{ $_[0]->control(GET => 'devices') } }
sub forget { $_[0]->control(DELETE => 'journal') }
sub settings { $_[0]->control(POST => 'settings', $_[1]) }
sub policies { $_[0]->control(POST => 'policies', $_[1]) }


sub faults {
    my ($self, $rules) = @_;

    return $rules ? $self->control(POST => 'faults', $rules)
                  : $self->control(GET => 'faults');
}


sub add {
    my ($self, @ids) = @_;

    return $self->control(POST => 'devices',
                          [map { ref $_ ? @$_ : $_ } @ids]);
}


sub remove { $_[0]->control(DELETE => 'devices/' . _escape($_[1])) }
sub disable { $_[0]->_set_status($_[1], 'disabled') }
sub enable { $_[0]->_set_status($_[1], 'enabled') }


sub _set_status {
    my ($self, $id, $status) = @_;

    return $self->control(PUT => 'devices/' . _escape($id),
                          { status => $status });
}


sub _escape {
    my ($text) = @_;

    $text =~ s/([^A-Za-z0-9._~-])/sprintf '%%%02X', ord $1/ge;

    return $text;
}


sub wait_for {
    my ($self, $op, $count, $timeout, %filter) = @_;

    $timeout //= 15;
    %filter = (%filter, op => $op, count => $count // 1,
               timeout => int($timeout * 1000));

    my $answer = $self->exchange(GET => '/simulator/wait?'
        . join('&', map { "$_=" . _escape($filter{$_}) }
               CORE::keys %filter), timeout => $timeout + 10);

    return $answer->{status} =~ /^2/;
}


sub stop { $_[0]->_stop }


sub _stop {
    my ($self) = @_;

    my $pid = delete $self->{pid} or return 1;

    kill TERM => $pid;

    my $ended = IoTHubTest->_until(5, sub { waitpid($pid, WNOHANG) != 0 });

    return 1 if $ended;

    kill KILL => $pid;
    waitpid $pid, 0;

    return 0;
}


1;
