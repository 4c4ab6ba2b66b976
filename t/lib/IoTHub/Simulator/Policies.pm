# Copyright (C) the ngx_http_iothub_module authors

# The hub's shared access policies: names, two keys each, rights.

package IoTHub::Simulator::Policies;

use v5.36;
use strict;
use warnings;

use MIME::Base64 qw(decode_base64);

my @RIGHTS = qw(RegistryRead RegistryWrite DeviceConnect ServiceConnect);
my %RIGHT = map { lc $_ => $_ } @RIGHTS;
my @DEFAULT_RIGHTS = @RIGHTS[0 .. 2];


sub new($class, %arg) {
    my $self = bless {
        specs => $arg{specs} // [],
        file  => $arg{file},
        named => {},
    }, $class;
    $self->load;
    return $self;
}


# The command line's policies and the file's, anew.

sub load($self) {
    my @specs = @{ $self->{specs} };

    if (defined $self->{file}) {
        open my $in, '<', $self->{file} or die "$self->{file}: $!\n";
        while (my $line = <$in>) {
            $line =~ s/^\s+|\s+\z//g;
            push @specs, $line unless $line eq '' || $line =~ /^#/;
        }
        close $in;
    }

    $self->{named} = { map { ($_->{name} => $_) } map { parse($_) } @specs };
    return;
}


# NAME:PRIMARY[:SECONDARY][:RIGHT,RIGHT]

sub parse($spec) {
    my ($name, $primary, @rest) = split /:/, $spec, -1;

    my $rights;
    if (@rest && $rest[-1] ne '' && !grep { !$RIGHT{lc $_} }
        split /,/, $rest[-1])
    {
        $rights = [split /,/, pop @rest];
    }

    die "policy '" . ($name // '') . "': NAME:PRIMARY[:SECONDARY][:RIGHTS]\n"
        if @rest > 1 || !length($name // '') || !length($primary // '');

    return policy($name, $primary, $rest[0], $rights);
}


sub policy($name, $primary, $secondary, $rights) {
    my %keys;

    for ([primary => $primary], [secondary => $secondary]) {
        my ($which, $text) = @$_;
        next unless length($text // '');
        die "policy '$name': the $which key is not base64\n"
            unless $text =~ m{^[A-Za-z0-9+/]+={0,2}\z};
        $keys{$which} = decode_base64($text);
    }

    my %rights;
    for my $right (@{ $rights // \@DEFAULT_RIGHTS }) {
        my $known = $RIGHT{lc $right}
            or die "policy '$name': no such right: $right\n";
        $rights{$known} = 1;
    }

    return { name => $name, keys => \%keys, rights => \%rights };
}


# What the control call says: { NAME: { primary, secondary, rights } }.

sub replace($self, $named) {
    my %policies;

    for my $name (keys %$named) {
        my $entry = $named->{$name};
        die "policy '$name': an object is needed\n"
            unless ref $entry eq 'HASH';
        $policies{$name} = policy($name, @$entry{qw(primary secondary)},
            $entry->{rights});
    }

    $self->{named} = \%policies;
    return;
}


sub find($self, $name) { return $self->{named}{$name} }

1;
